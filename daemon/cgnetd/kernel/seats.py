# SPDX-License-Identifier: Apache-2.0
"""The hooks at which somebody can meet the sockets that policies govern, ours among them, and which are worth asking
about. Must not know where in the tree somebody is.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.hooks import HOOKS
from cgnetd.kernel.others import unless_gone
from pybpf import AttachType, BpfError, Program, ProgType, cgroup_attached, program_ids

_PATIENCE = 5  # times the budget, by the clock


@dataclass(frozen=True, slots=True)
class Seat:
    """A hook of the kernel at which somebody can be, ours or not."""

    name: str
    attach_type: AttachType
    prog_type: ProgType


SEATS: dict[str, Seat] = {
    seat.name: seat
    for seat in (
        *(Seat(hook.name, hook.attach_type, hook.prog_type) for hook in HOOKS.values() if not hook.tracepoint),
        # None of ours is there, but what they do meets the same sockets.
        Seat("ingress", AttachType.CGROUP_INET_INGRESS, ProgType.CGROUP_SKB),
        Seat("egress", AttachType.CGROUP_INET_EGRESS, ProgType.CGROUP_SKB),
        Seat("sock_release", AttachType.CGROUP_INET_SOCK_RELEASE, ProgType.CGROUP_SOCK),
        Seat("setsockopt", AttachType.CGROUP_SETSOCKOPT, ProgType.CGROUP_SOCKOPT),
        Seat("getsockname_unix", AttachType.CGROUP_UNIX_GETSOCKNAME, ProgType.CGROUP_SOCK_ADDR),
    )
}


class Budget:
    """Time to look: of this thread's own, and of the clock for a machine that has no time for it."""

    def __init__(self, own_s: float) -> None:
        self._own_end_s = time.thread_time() + own_s
        self._end_s = time.monotonic() + own_s * _PATIENCE

    @property
    def is_spent(self) -> bool:
        return time.thread_time() > self._own_end_s or time.monotonic() > self._end_s


def present(root: CgroupRoot) -> tuple[Seat, ...]:
    """Those that this kernel has. OSError."""
    return tuple(seat for seat in SEATS.values() if _has(root, seat))


def _has(root: CgroupRoot, seat: Seat) -> bool:
    try:
        cgroup_attached(root.fd, seat.attach_type)
    except BpfError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def worth_asking(seats: Sequence[Seat], ours: Iterable[int], budget: Budget) -> tuple[Seat, ...]:
    """Those for which there is any program but ours in this kernel: most often few, so a large tree is walked fast.
    All, if there are too many programs to look through. `ours`: ids. OSError."""
    wanted = {seat.prog_type for seat in seats}
    known = set(ours)
    loaded: set[int] = set()
    for prog_id in program_ids():
        if wanted <= loaded or budget.is_spent:
            return tuple(seats)
        if prog_id not in known:
            with unless_gone(), Program.from_id(prog_id) as program:
                loaded.add(program.info.type)
    return tuple(seat for seat in seats if seat.prog_type in loaded)
