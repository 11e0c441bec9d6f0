# SPDX-License-Identifier: Apache-2.0
"""Who else is attached where our programs are, above and below, and which of them run before or after ours.

Order is what the kernel says that it runs, never what flags let expect: programs of a cgroup run before those of its
ancestors, within one cgroup in the order of attaching, and those attached with BPF_F_PREORDER before all others.
Changes nothing. Must not know policies.
"""

from __future__ import annotations

import enum
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgnetd.kernel.bpffs import CGROUP2_MAGIC, filesystem_magic
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.others import unless_gone
from cgnetd.kernel.seats import Budget, Seat, present, worth_asking
from pybpf import AttachFlag, cgroup_attached, effective_programs

SIGHTINGS_MAX = 2000


class Place(enum.Enum):
    """Where somebody is, as seen from the managed root."""

    ABOVE = "above"
    ROOT = "root"
    BELOW = "below"


class Order(enum.Enum):
    BEFORE = "before"
    AFTER = "after"
    APART = "apart"  # none of our programs is at that hook
    DISPLACED = "displaced"  # attached above, and does not run below our root: others stand in its place there


@dataclass(frozen=True, slots=True)
class Sighting:
    """A program that is not ours, attached to one cgroup. `cgroup`: its path below the root, the directory's own above
    it, "" where it is above and out of sight; `cgroup_id` is 0 then, and `flags` None."""

    seat: Seat
    place: Place
    cgroup: str
    cgroup_id: int
    prog_id: int
    flags: AttachFlag | None
    order: Order

    @property
    def flags_text(self) -> str:
        """ "multi", "override" or "exclusive", "" where it is not known."""
        return _FLAGS.get(self.flags, "") if self.flags is not None else ""


_FLAGS = {AttachFlag.EXCLUSIVE: "exclusive", AttachFlag.OVERRIDE: "override", AttachFlag.MULTI: "multi"}


@dataclass(frozen=True, slots=True)
class Survey:
    """`cgroups`: how many were looked at, those above apart; `complete`: these were all."""

    sightings: tuple[Sighting, ...]
    cgroups: int
    complete: bool


def survey(root: CgroupRoot, ours: Mapping[str, int], *, budget_s: float) -> Survey:
    """Everybody at and above the root, and everybody below it as far as one comes in `budget_s` of this thread's time.

    `ours`: our attached programs by hook. KernelError, PrivilegeError.
    """
    budget = Budget(budget_s)
    try:
        seats = worth_asking(present(root), ours.values(), budget)
        found = list(around(root, ours, seats))
        looked_at = 0
        complete = True
        for looked_at, cgroup in enumerate(root.walk() if seats else ()):
            if budget.is_spent or len(found) > SIGHTINGS_MAX:
                complete = False
                break
            if looked_at:  # the root was seen
                found += _below(root, cgroup.path, ours, seats)
    except OSError as error:
        raise kernel_error("find programs of others", error) from error
    return Survey(tuple(found), looked_at + complete, complete)


def around(root: CgroupRoot, ours: Mapping[str, int], seats: Sequence[Seat]) -> Iterator[Sighting]:
    """Everybody at the root and above it, the root first. OSError."""
    with _ancestors(root) as above:
        for seat in seats:
            our_id = ours.get(seat.name, 0)
            running = effective_programs(root.fd, seat.attach_type)
            unseen = Counter(running)
            unseen[our_id] -= 1
            here = _Cgroup(root.fd, root.id, "/", Place.ROOT)
            for cgroup in (here, *above):
                for sighting in _at(cgroup, seat, running, our_id):
                    unseen[sighting.prog_id] -= 1
                    yield sighting
            for prog_id in (+unseen).elements():
                order = _order(running, our_id, prog_id, from_above=True)
                yield Sighting(seat, Place.ABOVE, "", 0, prog_id, None, order)


@dataclass(frozen=True, slots=True)
class _Cgroup:
    fd: int
    id: int
    path: str
    place: Place


@contextmanager
def _ancestors(root: CgroupRoot) -> Iterator[tuple[_Cgroup, ...]]:
    """Those that can be seen, nearest first."""
    found = []
    with ExitStack() as opened:
        for path in root.path.parents:
            if filesystem_magic(path) != CGROUP2_MAGIC:
                break
            fd = _open(path)
            opened.callback(os.close, fd)
            found.append(_Cgroup(fd, os.fstat(fd).st_ino, str(path), Place.ABOVE))
        yield tuple(found)


def _below(root: CgroupRoot, path: str, ours: Mapping[str, int], seats: Sequence[Seat]) -> list[Sighting]:
    """Nobody, if the cgroup is gone by now."""
    with unless_gone(), ExitStack() as opened:
        fd = _open(Path(f"{root.path}{path}"))
        opened.callback(os.close, fd)
        cgroup = _Cgroup(fd, os.fstat(fd).st_ino, path, Place.BELOW)
        return [sighting for seat in seats for sighting in _at(cgroup, seat, (), ours.get(seat.name, 0))]
    return []


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _at(cgroup: _Cgroup, seat: Seat, running: Sequence[int], our_id: int) -> Iterator[Sighting]:
    """`running`: what runs at the root, for those at the root and above."""
    attached = cgroup_attached(cgroup.fd, seat.attach_type)
    others = list(attached.prog_ids)
    if cgroup.place is Place.ROOT and our_id in others:
        others.remove(our_id)
    if not others:
        return
    if cgroup.place is Place.BELOW:
        running = effective_programs(cgroup.fd, seat.attach_type)
    for prog_id in others:
        order = _order(running, our_id, prog_id, from_above=cgroup.place is Place.ABOVE)
        yield Sighting(seat, cgroup.place, cgroup.path, cgroup.id, prog_id, attached.flags, order)


def _order(running: Sequence[int], our_id: int, prog_id: int, *, from_above: bool) -> Order:
    """A program that is attached in several cgroups runs several times: first where it is deepest."""
    places = [at for at, running_id in enumerate(running) if running_id == prog_id]
    if not places:
        return Order.DISPLACED
    if our_id not in running:
        return Order.APART
    return Order.AFTER if places[-1 if from_above else 0] > running.index(our_id) else Order.BEFORE


def directory(root: CgroupRoot, sighting: Sighting) -> str:
    """Where a program is attached, as a path for people."""
    if sighting.place is Place.ABOVE:
        return sighting.cgroup or "a cgroup above, out of sight"
    return str(Path(f"{root.path}{sighting.cgroup}"))
