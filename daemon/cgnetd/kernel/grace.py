# SPDX-License-Identifier: Apache-2.0
"""Waiting until every program that runs now has ended. Must not know why somebody waits."""

from __future__ import annotations

import sys

from cgnetd.kernel.maps import create, table_spec
from pybpf import Map, MapType

_FIRST = bytes(4)


def wait_for_programs() -> None:
    """Return when no program is running that was running at the call (some 10 ms). BpfError, KernelError.

    The kernel does so at the end of an update of a map of maps (kernel/bpf/syscall.c: maybe_wait_bpf_programs); one
    made for this has no other effect. membarrier(2) would do it too, but not on one CPU and not with nohz_full.
    """
    with (
        create(table_spec("grace", 1)) as inner,
        Map.create(MapType.ARRAY_OF_MAPS, "cgn_wait", key_size=4, value_size=4, max_entries=1, inner=inner) as outer,
    ):
        outer.update(_FIRST, inner.fd.to_bytes(4, sys.byteorder))
