# SPDX-License-Identifier: Apache-2.0
"""What a pass would do, without doing it: reads files and kernel, changes neither.

Must not lock anything: it may be asked while the daemon runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image
from cgnetd.datapath.state import ObservedState, SlotState, diff
from cgnetd.datapath.steps import Control
from cgnetd.errors import PolicyError
from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.pins import check_meta
from cgnetd.kernel.programs import Programs
from cgnetd.kernel.store import Store
from cgnetd.service.desired import desired_state, needed_hooks
from cgnetd.service.labelling import Differences, Labelling
from cgnetd.service.observe import observe, observe_slots
from cgnetd.service.reconcile import policy_source
from cgnetd.service.report import counted
from cgnetd.service.session import Surroundings, object_dir
from cgnetd.service.settings import Settings


def plan_lines(settings: Settings) -> Iterator[str]:
    """One line a step. Raises PolicyError for bad policies, and what the kernel's side raises."""
    with ExitStack() as stack:
        surroundings = Surroundings.find(settings)
        stack.callback(surroundings.close)
        asked = policy_source(settings, surroundings.features).look()
        if asked.image is None:
            raise PolicyError(asked.problems)
        index = asked.image.index
        policies = counted(len(index.policies), "policy", "policies")
        rules = counted(len(index.refs) - abi.RULE_FIRST, "rule", "rules")
        yield f"{policies} with {rules}, {asked.image.sizes.bytes} bytes"
        yield from (f"warning: {warning}" for warning in (*asked.warnings, *asked.weaknesses))
        observed = _observed(settings, surroundings, asked.image)
        desired = desired_state(settings, surroundings, asked.image.index)
        plan = diff(desired, observed)
        if not plan:
            yield "nothing to do: it is in force"
        yield from (step.text + (" (drift)" if step.drift else "") for step in plan.steps)


def _observed(settings: Settings, surroundings: Surroundings, image: Image) -> ObservedState:
    pin_dir = Path(settings.pin_dir)
    if not pin_dir.is_dir() or not check_meta(pin_dir):
        return ObservedState(Control(0, 0, 0), 0, (SlotState(),) * abi.SLOTS, {})
    with (
        Store.open(pin_dir, surroundings.root, create=False) as store,
        Programs(store, surroundings.features, object_dir()) as programs,
        Attachments(store, surroundings.root, programs) as links,
    ):
        slots = observe_slots(store, ())
        active = store.control().active % abi.SLOTS
        running = slots[active][1]
        differences = Differences()
        if running is not None and running.digest == image.digest:
            labelling = Labelling(surroundings.root, store)
            labelling.use(active, running.number, running)
            differences = labelling.differences()
        return observe(store, links, slots, needed_hooks(image.index, surroundings.features), differences).state
