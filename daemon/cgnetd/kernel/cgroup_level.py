# SPDX-License-Identifier: Apache-2.0
"""How deep in the whole hierarchy a cgroup2 mount stands. Must not know the managed root.

The kernel counts levels from the hierarchy's root. A mount made in a cgroup namespace, or a bind mount,
begins deeper, and no path tells how deep. So it is found by doing: a program asks for this process's ancestors.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cgnetd.errors import KernelError
from cgnetd.kernel.failure import kernel_error
from pybpf import BpfError, Program, ProgType, instruction

_HIERARCHY_ROOT_ID = 1  # the first kernfs node
_LEVELS = 64
_HELPER_ANCESTOR_CGROUP_ID = 123

_LOAD_U64 = 0x79
_SHIFT_RIGHT_REGISTER = 0x7F
_CALL = 0x85
_EXIT = 0x95


def mount_level(mount_point: Path) -> int:
    """Level of the cgroup at the top of a mount. KernelError if it cannot be told."""
    top_id = mount_point.stat().st_ino
    if top_id == _HIERARCHY_ROOT_ID:
        return 0
    try:
        ancestors = own_ancestor_ids()
    except BpfError as error:
        raise kernel_error(f"find the level of cgroup mount {mount_point}", error) from error
    if top_id in ancestors:
        return ancestors.index(top_id)
    raise KernelError(
        f"find the level of cgroup mount {mount_point}: it is a part of the hierarchy and this process is not in it; "
        "run the daemon in it, or with the host's cgroup mount and namespace"
    )


def own_ancestor_ids() -> tuple[int, ...]:
    """Ids of the cgroups from the hierarchy's root (level 0) to this process's own. BpfError without privilege."""
    ids = []
    with _ancestor_program() as program:
        for level in range(_LEVELS):
            halves = [program.test_run(context=_two_words(level, shift)).retval for shift in (0, 32)]
            if not any(halves):
                break
            ids.append(halves[1] << 32 | halves[0])
    return tuple(ids)


def _ancestor_program() -> Program:
    """A raw tracepoint program: (level, shift) -> 32 bits of (ancestor's id >> shift), in this process."""
    return Program.from_instructions(
        ProgType.RAW_TRACEPOINT,
        [
            instruction(_LOAD_U64, 6, 1, 8),
            instruction(_LOAD_U64, 1, 1, 0),
            instruction(_CALL, immediate=_HELPER_ANCESTOR_CGROUP_ID),
            instruction(_SHIFT_RIGHT_REGISTER, 0, 6),
            instruction(_EXIT),
        ],
        name="cgn_level",
    )


def _two_words(first: int, second: int) -> bytes:
    return first.to_bytes(8, sys.byteorder) + second.to_bytes(8, sys.byteorder)
