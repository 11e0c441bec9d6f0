# SPDX-License-Identifier: Apache-2.0
"""What is attached to a cgroup, whoever attached it. Must not know of links or object files."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass

from pybpf.constants import AttachFlag
from pybpf.errors import BpfError
from pybpf.lib import libbpf

PROGRAMS_MAX = 64  # of one attach type on one cgroup: BPF_CGROUP_MAX_PROGS of the kernel's kernel/bpf/cgroup.c
_EFFECTIVE = 1  # BPF_F_QUERY_EFFECTIVE


@dataclass(frozen=True, slots=True)
class Attached:
    """The programs of one attach type on one cgroup. `flags` are those of the cgroup; without programs they mean
    nothing. Which of them run before all others (BPF_F_PREORDER, Linux 6.15) is not told: see `effective_programs`."""

    prog_ids: tuple[int, ...]  # in the order of attaching
    flags: AttachFlag


def cgroup_attached(cgroup_fd: int, attach_type: int) -> Attached:
    """What is attached to this very cgroup. BpfError EPERM without privilege, EINVAL for a type the kernel lacks."""
    flags = ctypes.c_uint32()
    ids = _query(cgroup_fd, attach_type, 0, flags)
    return Attached(ids, AttachFlag(flags.value & (AttachFlag.OVERRIDE | AttachFlag.MULTI)))


def cgroup_programs(cgroup_fd: int, attach_type: int) -> tuple[int, ...]:
    """Ids of the programs attached to this very cgroup, in the order of attaching. BpfError as `cgroup_attached`."""
    return cgroup_attached(cgroup_fd, attach_type).prog_ids


def effective_programs(cgroup_fd: int, attach_type: int) -> tuple[int, ...]:
    """Ids of the programs that run for this cgroup, those of its ancestors among them, in the order they run.

    BpfError as `cgroup_attached`.
    """
    return _query(cgroup_fd, attach_type, _EFFECTIVE, ctypes.c_uint32())


def _query(cgroup_fd: int, attach_type: int, query_flags: int, flags: ctypes.c_uint32) -> tuple[int, ...]:
    room = PROGRAMS_MAX
    while True:
        ids = (ctypes.c_uint32 * room)()
        count = ctypes.c_uint32(room)
        try:
            libbpf().bpf_prog_query(cgroup_fd, attach_type, query_flags, ctypes.byref(flags), ids, ctypes.byref(count))
        except BpfError as error:
            if error.errno != errno.ENOSPC or count.value <= room:
                raise
            room = count.value  # more than one cgroup's worth: those of its ancestors
            continue
        return tuple(ids[: count.value])
