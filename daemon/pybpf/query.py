# SPDX-License-Identifier: Apache-2.0
"""What is attached to a cgroup, whoever attached it. Must not know of links or object files."""

from __future__ import annotations

import ctypes

from pybpf.lib import libbpf

PROGRAMS_MAX = 64  # of one attach type on one cgroup: BPF_CGROUP_MAX_PROGS of the kernel's kernel/bpf/cgroup.c


def cgroup_programs(cgroup_fd: int, attach_type: int) -> tuple[int, ...]:
    """Ids of the programs attached to this very cgroup, in the order they run. BpfError EPERM without privilege."""
    ids = (ctypes.c_uint32 * PROGRAMS_MAX)()
    count = ctypes.c_uint32(PROGRAMS_MAX)
    libbpf().bpf_prog_query(cgroup_fd, attach_type, 0, None, ids, ctypes.byref(count))
    return tuple(ids[: count.value])
