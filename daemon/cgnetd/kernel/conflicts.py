# SPDX-License-Identifier: Apache-2.0
"""Where programs of others and ours cannot both do their work: at the managed root and above it.

Nobody below can: a link is not displaced from below, and what runs below runs before ours. Must not know what is told
of it, nor change anything: whoever holds a hook is named and left alone.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.neighbours import Order, Place, Sighting, around, directory
from cgnetd.kernel.others import Other, describe
from cgnetd.kernel.seats import SEATS
from pybpf import AttachFlag

_VIEW_HOOKS = ("getpeername", "getsockname", "recvmsg", "getsockopt", "sock_ops")


class Clash(enum.Enum):
    HELD = "held"  # ours cannot be attached
    OVERRULED = "overruled"  # theirs runs after ours
    DISPLACED = "displaced"  # theirs does not run below our root while ours is attached


_CLASHES = {Order.AFTER: Clash.OVERRULED, Order.DISPLACED: Clash.DISPLACED}


@dataclass(frozen=True, slots=True)
class Conflict:
    """One program of others at one hook. `cgroup` is a directory, or says that it is out of sight."""

    clash: Clash
    hook: str
    cgroup: str
    root: str
    other: Other

    @property
    def text(self) -> str:
        """What it means, and for what is to be mended, how."""
        return _TEXTS[self.clash](self)


def find_conflicts(root: CgroupRoot, ours: Mapping[str, int], wanted: Iterable[str]) -> tuple[Conflict, ...]:
    """At the hooks of `wanted`, attached or not. `ours`: our attached programs by hook. KernelError, PrivilegeError."""
    seats = [SEATS[name] for name in sorted(wanted) if name in SEATS]
    try:
        seen = list(around(root, ours, seats))
        missing = [sighting for sighting in seen if sighting.seat.name not in ours]
        attached = [sighting for sighting in seen if sighting.seat.name in ours]
        return (
            *(_conflict(root, Clash.HELD, sighting) for sighting in _holders(missing)),
            *(_conflict(root, _CLASHES[each.order], each) for each in attached if each.order in _CLASHES),
        )
    except OSError as error:
        raise kernel_error("find conflicts with programs of others", error) from error


def holder(root: CgroupRoot, hook: str) -> Conflict | None:
    """Who keeps ours from being attached to a hook, which was refused. OSError."""
    seen = list(around(root, {}, [SEATS[hook]]))
    unseen = (sighting for sighting in seen if sighting.flags is None)
    found = next(iter((*_holders(seen), *unseen)), None)
    return _conflict(root, Clash.HELD, found) if found is not None else None


def _holders(sightings: Iterable[Sighting]) -> Iterator[Sighting]:
    """Those for whom the kernel refuses a link at the root: at the root whoever does not let others in, above it the
    nearest one if it gives way to nobody. Kernel: __cgroup_bpf_attach, hierarchy_allows_attach."""
    decided = set()
    for sighting in sightings:
        if sighting.flags is None:
            continue
        if sighting.place is Place.ROOT:
            if not sighting.flags & AttachFlag.MULTI:
                yield sighting
        elif sighting.seat not in decided:
            decided.add(sighting.seat)
            if sighting.flags == AttachFlag.EXCLUSIVE:
                yield sighting


def _conflict(root: CgroupRoot, clash: Clash, sighting: Sighting) -> Conflict:
    other = describe(sighting.prog_id)
    return Conflict(clash, sighting.seat.name, directory(root, sighting), str(root.path), other)


def _held(found: Conflict) -> str:
    in_sight = found.cgroup.startswith("/")
    remedy = f", or detach it: bpftool cgroup detach {found.cgroup} {found.hook} id {found.other.prog_id}"
    return (
        f"hook {found.hook} cannot be attached to {found.root}: {found.other} is attached to {found.cgroup} and lets "
        "nobody else in (no BPF_F_ALLOW_MULTI); it was left there. Have it attached with that flag or by a link"
        f"{remedy if in_sight else ''}"
    )


def _overruled(found: Conflict) -> str:
    view = found.hook.startswith(_VIEW_HOOKS)
    what = "change what cgnetd answers" if view else "let through what cgnetd denies, and change what it rewrites"
    return f"hook {found.hook}: {found.other} at {found.cgroup} runs after cgnetd's and could {what}"


def _displaced(found: Conflict) -> str:
    return (
        f"hook {found.hook}: {found.other} at {found.cgroup} does not run below {found.root} while cgnetd is attached: "
        "it was attached without BPF_F_ALLOW_MULTI"
    )


_TEXTS = {Clash.HELD: _held, Clash.OVERRULED: _overruled, Clash.DISPLACED: _displaced}
