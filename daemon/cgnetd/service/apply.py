# SPDX-License-Identifier: Apache-2.0
"""Makes the steps of a plan, in its order; each can be made again.

A step that fails ends the pass: a new generation is complete and labelled before the one step that puts it in force, so
that what was in force is in force still. Must not know why a step is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from cgnetd.datapath.state import LABELLING_HOOKS
from cgnetd.datapath.steps import (
    Activate,
    AttachLink,
    ClearSlot,
    DetachLink,
    DropLabels,
    FixControl,
    Plan,
    Relabel,
    RepairPins,
    Step,
    UpdateLink,
    WriteGeneration,
)
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.grace import wait_for_programs
from cgnetd.service.counters import carried
from cgnetd.service.generation import Generation, is_older
from cgnetd.service.labelling import Differences
from cgnetd.service.live import LiveTables
from cgnetd.service.session import Session

_LINK_STEPS = (AttachLink, UpdateLink)


@dataclass(slots=True)
class Application:
    """One plan on one session. `done` and `repaired` grow with each step; `slots` is what is in the slots by then."""

    session: Session
    slots: list[Generation | None]
    fresh: Generation | None  # to be written, should the plan say so
    differences: Differences
    live: LiveTables
    done: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    activated: Generation | None = None

    def run(self, plan: Plan) -> None:
        """Make every step. KernelError, PinError or PrivilegeError of the one that fails."""
        for kind, group in groupby(plan.steps, key=_kind):
            steps = list(group)
            try:
                _MAKERS[kind](self, steps)
            except OSError as error:
                raise kernel_error(steps[0].text, error) from error
            self.done += [step.text for step in steps]
            self.repaired += [step.text for step in steps if step.drift]

    def _repair_pins(self, _steps: Sequence[Step]) -> None:
        self.session.store.repair_pins()

    def _fix_control(self, steps: Sequence[Step]) -> None:
        for step in steps:
            assert isinstance(step, FixControl)
            self.session.store.set_root(step.control.root_level, step.control.root_id)
            self.session.store.set_window(step.control.window_ns)
            self.session.store.set_netns(step.control.netns)
            self.session.store.set_flags(step.control.flags)

    def _write_generation(self, steps: Sequence[Step]) -> None:
        (step,) = steps
        assert isinstance(step, WriteGeneration)
        assert self.fresh is not None
        store, fresh = self.session.store, self.fresh
        self._settle(step.slot)
        rules = len(fresh.index.refs)
        live = self.live.cells(fresh.index.live)
        index, cells = fresh.index.to_bytes(), memoryview(fresh.cells)
        store.write_slot(step.slot, cells, index, rules, memoryview(live), head=fresh.head)
        self.live.written(step.slot, fresh.number, live)
        store.set_generation(step.slot, fresh.number)
        with store.slot(step.slot) as view:
            self.slots[step.slot] = replace(fresh, image_id=view.image_id)
        self.session.labels.use(step.slot, fresh.number, fresh)

    def _link(self, steps: Sequence[Step]) -> None:
        self.session.links.attach([step.name for step in steps if isinstance(step, _LINK_STEPS)])
        if any(isinstance(step, AttachLink) and step.name in LABELLING_HOOKS for step in steps):
            self.session.labels.doubt()

    def _relabel(self, steps: Sequence[Step]) -> None:
        if any(isinstance(step, Relabel) and step.count for step in steps):
            self.session.labels.mend(self.differences)
        else:
            self.session.labels.label_all()

    def _activate(self, steps: Sequence[Step]) -> None:
        (step,) = steps
        assert isinstance(step, Activate)
        self.session.store.activate(step.slot)
        self.activated = self.slots[step.slot]

    def _clear(self, steps: Sequence[Step]) -> None:
        for step in steps:
            assert isinstance(step, ClearSlot)
            self._settle(step.slot)
            self.session.store.clear_slot(step.slot)
            self.session.labels.drop(step.slot)
            self.slots[step.slot] = None
        if not any(self.slots):
            self.session.labels.remove_all()

    def _settle(self, slot: int) -> None:
        """Let the programs that still use a slot end, then carry what it counted into the generation in force.

        A program reads once which slot is in force; emptying that slot under it would be a wrong verdict.
        """
        control = self.session.store.control()
        old, current = self.slots[slot], self.slots[control.active]
        if control.active == slot or not control.generations[slot]:
            return
        wait_for_programs()
        if old is None or current is None or not is_older(old.number, current.number):
            return
        with self.session.store.slot(slot) as view:
            totals = view.totals()
        self.session.store.carry(control.active, carried(old.index, totals, current.index))

    def _detach(self, steps: Sequence[Step]) -> None:
        self.session.links.detach([step.name for step in steps if isinstance(step, DetachLink)])

    def _drop_labels(self, _steps: Sequence[Step]) -> None:
        self.session.labels.drop_extra(self.differences)


_MAKERS: dict[type, Callable[[Application, Sequence[Step]], None]] = {
    RepairPins: Application._repair_pins,
    FixControl: Application._fix_control,
    WriteGeneration: Application._write_generation,
    AttachLink: Application._link,
    Relabel: Application._relabel,
    Activate: Application._activate,
    ClearSlot: Application._clear,
    DetachLink: Application._detach,
    DropLabels: Application._drop_labels,
}


def _kind(step: Step) -> type:
    """Links are attached together: every program is loaded before the first of them changes."""
    return AttachLink if isinstance(step, _LINK_STEPS) else type(step)
