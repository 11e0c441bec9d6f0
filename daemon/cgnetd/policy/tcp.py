# SPDX-License-Identifier: Apache-2.0
"""The tuning of TCP connections: what the policies that govern a cgroup say together.

Must not know how it is put on a connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from .types import Policy, TcpSettings


def tcp_settings(chain: Sequence[Policy]) -> TcpSettings:
    """The settings for a cgroup governed by `chain`, in order of evaluation. For each field the first policy that sets
    it counts; audit policies have no say."""
    said = [policy.tcp for policy in chain if policy.tcp and not policy.audit]
    return TcpSettings(
        congestion=next((tcp.congestion for tcp in said if tcp.congestion is not None), None),
        initial_rto_ms=next((tcp.initial_rto_ms for tcp in said if tcp.initial_rto_ms is not None), None),
        initial_window=next((tcp.initial_window for tcp in said if tcp.initial_window is not None), None),
    )
