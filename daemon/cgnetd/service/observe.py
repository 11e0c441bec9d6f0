# SPDX-License-Identifier: Apache-2.0
"""What the kernel holds now, in the terms of the plan: slots, links, labels, pins.

Changes nothing. Must not know what should be there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from cgnetd.datapath import abi
from cgnetd.datapath.state import LabelState, ObservedState, SlotState, hooks_in_force
from cgnetd.datapath.steps import Control, LinkState
from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.attach import LinkState as KernelLinkState
from cgnetd.kernel.slots import SlotView
from cgnetd.kernel.store import Store
from cgnetd.service.generation import Generation, read_generation
from cgnetd.service.labelling import Differences

RIGHT = KernelLinkState.OK.value  # of a hook in `Seen.hooks`

_LINK_STATES = {
    KernelLinkState.OK: LinkState.OK,
    KernelLinkState.MISSING: LinkState.MISSING,
    KernelLinkState.WRONG_PROGRAM: LinkState.OUTDATED,
}


@dataclass(frozen=True, slots=True)
class Seen:
    """`state`: for the plan. `slots`: the generation in each slot, None if it is empty or cannot be read."""

    state: ObservedState
    slots: tuple[Generation | None, ...]
    hooks: dict[str, str] = field(default_factory=dict)  # their states in words

    @property
    def running(self) -> Generation | None:
        """The generation in force."""
        return self.slots[self.state.active]


def observe_slots(store: Store, known: Collection[Generation]) -> tuple[tuple[SlotState, Generation | None], ...]:
    """State and content of each slot. Content that is `known`, in the same frozen map, is not read again."""
    control = store.control()
    return tuple(_observe_slot(store, slot, control.generations[slot], known) for slot in range(abi.SLOTS))


def _observe_slot(
    store: Store, slot: int, number: int, known: Collection[Generation]
) -> tuple[SlotState, Generation | None]:
    if not number:
        return SlotState(), None
    with store.slot(slot) as view:
        same = [g for g in known if view.image_id and g.image_id == view.image_id]
        found = same[0] if same else read_generation(view)
        intact = found is not None and view.consistent and found.number == number and _has_live(view, found)
        return SlotState(number, found.digest if found is not None and intact else ""), found


def _has_live(view: SlotView, generation: Generation) -> bool:
    """Whether the slot's live table has room for what the generation keeps there; an empty one has one cell."""
    return view.live is not None and len(view.live) == max(generation.index.live.size, 1)


def observe(
    store: Store,
    links: Attachments,
    slots: tuple[tuple[SlotState, Generation | None], ...],
    needed: frozenset[str],
    differences: Differences,
    *,
    seen_right: frozenset[str] = frozenset(),
) -> Seen:
    """Everything else, beside what was seen of the slots. `needed`: hooks to look at even if they have no pin.
    `seen_right`: those that were right when this daemon looked last."""
    control = store.control()
    active = control.active % abi.SLOTS
    running = slots[active][1]
    attached = links.observe(needed | links.pinned())
    state = ObservedState(
        control=Control(control.root_id, control.root_level, control.window_ns, control.flags, control.netns),
        active=active,
        slots=tuple(slot for slot, _ in slots),
        links={name: _LINK_STATES.get(seen.state, LinkState.BROKEN) for name, seen in attached.items()},
        hooks=hooks_in_force(running.index) if running is not None else frozenset(),
        labels=LabelState(len(differences.wrong), len(differences.foreign), len(differences.stale)),
        lost_pins=store.lost_pins(),
        seen_right=seen_right,
    )
    hooks = {name: seen.state.value for name, seen in attached.items()}
    return Seen(state, tuple(generation for _, generation in slots), hooks)
