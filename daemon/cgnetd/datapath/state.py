# SPDX-License-Identifier: Apache-2.0
"""What a reconcile pass wants, what it sees, and the steps between: a pure diff.

The order of the steps is what keeps every moment's verdict right: a generation is complete and labelled, and its hooks
are attached, before it is put in force; what it does not need goes afterwards. Must not know how a step is made, or how
anything is observed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

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
from cgnetd.policy.types import Action

LABELLING_HOOKS = frozenset({"cgroup_mkdir", "cgroup_rmdir"})
EGRESS_HOOKS = frozenset({"connect4", "connect6", "sendmsg4", "sendmsg6", "sock_create"})
BIND_HOOKS = frozenset({"bind4", "bind6", "post_bind4", "post_bind6"})


def hooks_in_force(index: RuleIndex) -> frozenset[str]:
    """The hooks that a generation needs: none without policies, all where what nobody decided is denied."""
    if not index.policies:
        return frozenset()
    deny = Action(index.refs[abi.RULE_DEFAULT].action) is Action.DENY
    found = set(LABELLING_HOOKS)
    if deny or any(policy.has_egress for policy in index.policies):
        found |= EGRESS_HOOKS
    if deny or any(policy.has_bind for policy in index.policies):
        found |= BIND_HOOKS
    return frozenset(found)


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
    """`digest`: of the image to be in force; "" if there are no policies, then `hooks` is empty."""

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
    if observed.control != desired.control:
        root_was_set = bool(observed.control.root_id)
        moved = (observed.control.root_id, observed.control.root_level) != (
            desired.control.root_id,
            desired.control.root_level,
        )
        yield FixControl(root_was_set and moved, desired.control)


def _to_generation(desired: DesiredState, observed: ObservedState) -> Iterator[Step]:
    in_force = observed.slots[observed.active]
    other = (observed.active + 1) % abi.SLOTS
    fresh = in_force.digest != desired.digest
    if fresh:
        yield WriteGeneration(in_force.damaged, other)
    labelling = list(_attach(desired.hooks & LABELLING_HOOKS, observed))
    yield from labelling
    attached = [step.drift for step in labelling if isinstance(step, AttachLink)]
    if fresh or attached:  # nobody labelled the cgroups that came since the labels were read
        yield Relabel(in_force.damaged or any(attached))
    elif observed.labels.wrong:
        yield Relabel(True, observed.labels.wrong)
    yield from _attach(desired.hooks - LABELLING_HOOKS, observed)
    if fresh:
        yield Activate(in_force.damaged, other)
        if in_force.generation:
            yield ClearSlot(False, observed.active)
    elif observed.slots[other].generation:
        yield ClearSlot(False, other)
    yield from _detach(observed.links.keys() - desired.hooks, observed)


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
