# SPDX-License-Identifier: Apache-2.0
"""What a reconcile pass wants, what it sees, and the steps between: a pure diff.

The order of the steps is what keeps every moment's verdict right: a generation is complete and labelled, and its hooks
are attached, before it is put in force; what it does not need goes afterwards. Must not know how a step is made, or how
anything is observed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cgnetd.datapath import abi
from cgnetd.datapath.rules import RuleIndex
from cgnetd.datapath.steps import (
    Activate,
    AttachLink,
    ClearSlot,
    Control,
    DetachLink,
    DropLabels,
    FixControl,
    LinkState,
    Plan,
    Relabel,
    RepairPins,
    Step,
    UpdateLink,
    WriteGeneration,
)

LABELLING_HOOKS = frozenset({"cgroup_mkdir", "cgroup_rmdir"})
EGRESS_HOOKS = frozenset({"connect4", "connect6", "sendmsg4", "sendmsg6", "sock_create"})
BIND_HOOKS = frozenset({"bind4", "bind6", "post_bind4", "post_bind6"})
_PEER_VIEW = frozenset({"getpeername4", "getpeername6"})
_BIND_VIEW = frozenset({"getsockname4", "getsockname6"})
_DATAGRAM_VIEW = frozenset({"recvmsg4", "recvmsg6"})
_ORIGIN_VIEW = frozenset({"sock_ops", "getsockopt"})
_UNIX_VIEW = frozenset({"recvmsg_unix", "getpeername_unix"})
VIEW_HOOKS = _PEER_VIEW | _BIND_VIEW | _DATAGRAM_VIEW | _ORIGIN_VIEW | _UNIX_VIEW
"""They show sockets what they asked for. Once attached they stay while there are policies: sockets can hold views that
rules of before gave them."""
_TRUTH = {
    _PEER_VIEW: frozenset({"connect4", "connect6"}),
    _DATAGRAM_VIEW: frozenset({"sendmsg4", "sendmsg6"}),
    _BIND_VIEW: frozenset({"bind4", "bind6"}),
    _UNIX_VIEW: frozenset({"connect_unix", "sendmsg_unix"}),
}
"""The hooks that take a view back when the socket goes elsewhere: they stay with those that show it."""

_HOOKS_OF = {
    "egress": EGRESS_HOOKS,
    "bind": BIND_HOOKS,
    "socket": frozenset({"sock_create"}),
    "unix": frozenset({"connect_unix", "sendmsg_unix"}),
    "tcp": frozenset({"sock_ops"}),
    "redirect_tcp": _PEER_VIEW | _ORIGIN_VIEW,
    "redirect_udp": _PEER_VIEW | _DATAGRAM_VIEW,
    "bind_view": _BIND_VIEW,
    "unix_redirect": _UNIX_VIEW,
}


def hooks_in_force(index: RuleIndex) -> frozenset[str]:
    """The hooks that a generation needs: none without policies."""
    if not index.policies:
        return frozenset()
    return LABELLING_HOOKS.union(*(_HOOKS_OF[need] for need in index.needs))


@dataclass(frozen=True, slots=True)
class SlotState:
    """`generation` 0 is an empty slot. `digest` is "" if the slot is empty or does not hold what its index says."""

    generation: int = 0
    digest: str = ""

    @property
    def damaged(self) -> bool:
        return bool(self.generation) and not self.digest


@dataclass(frozen=True, slots=True)
class LabelState:
    """Entries that are not as they should be: of cgroups of ours, of none of ours, of removed ones."""

    wrong: int = 0
    foreign: int = 0
    stale: int = 0


@dataclass(frozen=True, slots=True)
class DesiredState:
    """`digest`: of the image to be in force; "" if there are no policies, then `hooks` is empty. View hooks that are
    attached stay even if they are not among `hooks`, with those that keep views true, and flags of `control` that are
    set stay set."""

    digest: str
    hooks: frozenset[str]
    control: Control


@dataclass(frozen=True, slots=True)
class ObservedState:
    """`links`: every hook that has a pin or is desired. `hooks`: what the generation in force needs. `seen_right`:
    those whose links held our programs when this daemon looked last."""

    control: Control
    active: int
    slots: tuple[SlotState, ...]
    links: Mapping[str, LinkState]
    hooks: frozenset[str] = frozenset()
    labels: LabelState = field(default_factory=LabelState)
    lost_pins: tuple[str, ...] = ()
    seen_right: frozenset[str] = frozenset()


def diff(desired: DesiredState, observed: ObservedState) -> Plan:
    """The steps from what is to what should be."""
    steps = [*_foundations(desired, observed)]
    steps += _to_generation(desired, observed) if desired.digest else _to_nothing(observed)
    if observed.labels.foreign or observed.labels.stale:
        steps.append(DropLabels(bool(observed.labels.foreign), observed.labels.foreign + observed.labels.stale))
    return Plan(tuple(steps))


def _foundations(desired: DesiredState, observed: ObservedState) -> Iterator[Step]:
    if observed.lost_pins:
        yield RepairPins(True, observed.lost_pins)
    control = replace(desired.control, flags=desired.control.flags | observed.control.flags)
    if observed.control != control:
        root_was_set = bool(observed.control.root_id)
        moved = (observed.control.root_id, observed.control.root_level) != (control.root_id, control.root_level)
        yield FixControl(root_was_set and moved, control)


def _to_generation(desired: DesiredState, observed: ObservedState) -> Iterator[Step]:
    in_force = observed.slots[observed.active]
    other = (observed.active + 1) % abi.SLOTS
    fresh = in_force.digest != desired.digest
    hooks = desired.hooks | _staying(observed)
    if fresh:
        yield WriteGeneration(in_force.damaged, other)
    labelling = list(_attach(hooks & LABELLING_HOOKS, observed))
    yield from labelling
    attached = [step.drift for step in labelling if isinstance(step, AttachLink)]
    if fresh or attached:  # nobody labelled the cgroups that came since the labels were read
        yield Relabel(in_force.damaged or any(attached))
    elif observed.labels.wrong:
        yield Relabel(True, observed.labels.wrong)
    yield from _attach(hooks - LABELLING_HOOKS, observed)
    if fresh:
        yield Activate(in_force.damaged, other)
        if in_force.generation:
            yield ClearSlot(False, observed.active)
    elif observed.slots[other].generation:
        yield ClearSlot(False, other)
    yield from _detach(observed.links.keys() - hooks, observed)


def _staying(observed: ObservedState) -> frozenset[str]:
    """The view hooks that have a pin, and those that keep them true."""
    there = frozenset(name for name, state in observed.links.items() if state is not LinkState.MISSING)
    true = (names for views, names in _TRUTH.items() if views & there)
    return there & VIEW_HOOKS.union(*true)


def _to_nothing(observed: ObservedState) -> Iterator[Step]:
    yield from _detach(observed.links.keys(), observed)
    for slot, state in enumerate(observed.slots):
        if state.generation:
            yield ClearSlot(False, slot)


def _attach(names: frozenset[str], observed: ObservedState) -> Iterator[Step]:
    for name in sorted(names):
        state = observed.links.get(name, LinkState.MISSING)
        if state is LinkState.OUTDATED:
            yield UpdateLink(name in observed.seen_right, name)
        elif state is not LinkState.OK:
            yield AttachLink(name in observed.hooks or state is LinkState.BROKEN, name, state)


def _detach(names: Collection[str], observed: ObservedState) -> Iterator[Step]:
    """Those that have a pin; new cgroups go on being labelled until no hook is left that reads labels."""
    there = [name for name in names if observed.links[name] is not LinkState.MISSING]
    for name in sorted(there, key=lambda name: (name in LABELLING_HOOKS, name)):
        yield DetachLink(False, name)
