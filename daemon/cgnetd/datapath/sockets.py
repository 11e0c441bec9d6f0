# SPDX-License-Identifier: Apache-2.0
"""What a policy says of new sockets and of TCP connections, as cells of its header.

Must not know of tables.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from cgnetd.datapath import abi
from cgnetd.policy.types import Rule, SocketType, TcpSettings

FAMILIES = (4, 6)
TYPES = (SocketType.STREAM, SocketType.DGRAM, SocketType.RAW, SocketType.OTHER)
CONTEXTS = tuple((family, kind) for family in FAMILIES for kind in TYPES)
CONGESTION_BYTES = 16  # of its name with a NUL


def socket_references(rules: Sequence[tuple[int, Rule]], fallback: int) -> tuple[int, ...]:
    """The reference for each kind of new socket, of rules with their own references; `fallback` where none matches."""
    return tuple(
        next((reference for reference, rule in rules if _matches(rule, family, kind)), fallback)
        for family, kind in CONTEXTS
    )


def socket_context(family: int, kind: SocketType) -> int:
    """The number of a kind of new socket; IPv4 comes first."""
    return CONTEXTS.index((family, kind))


def tcp_cells(tcp: TcpSettings) -> tuple[int, ...]:
    """The cells from abi.POLICY_TCP on: what is left alone is 0."""
    name = (tcp.congestion or "").encode("ascii")
    if len(name) >= CONGESTION_BYTES:
        raise ValueError(f"compile tcp: the congestion control {tcp.congestion!r} has 16 bytes or more")
    times = abi.cell(tcp.initial_rto_ms or 0, tcp.initial_window or 0)
    return (times, *array("Q", name.ljust(CONGESTION_BYTES, b"\0")))


def _matches(rule: Rule, family: int, kind: SocketType) -> bool:
    return (rule.families is None or family in rule.families) and (rule.types is None or kind in rule.types)
