# SPDX-License-Identifier: Apache-2.0
"""One pass: what the files ask for, what the kernel holds, the plan between them, its steps made.

Level-triggered: a pass believes neither events nor its own memory of the kernel. Must not know when passes are made,
nor whom they are reported to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cgnetd.datapath import abi
from cgnetd.datapath.label import Label
from cgnetd.datapath.state import DesiredState, SlotState, diff
from cgnetd.datapath.steps import Activate, Plan
from cgnetd.errors import CgnetdError
from cgnetd.kernel.conflicts import Conflict, find_conflicts
from cgnetd.kernel.features import Features
from cgnetd.kernel.flush import Flushed, flush
from cgnetd.policy.collector import collector_at_rest
from cgnetd.service.apply import Application
from cgnetd.service.degraded import degradations, refusals
from cgnetd.service.desired import desired_state, needed_hooks
from cgnetd.service.generation import Generation, next_number, of_image, renumbered
from cgnetd.service.handover import keep
from cgnetd.service.labelling import Differences, label_at
from cgnetd.service.live import LiveTables
from cgnetd.service.observe import RIGHT, Seen, observe, observe_slots
from cgnetd.service.policy_source import Asked, PolicySource
from cgnetd.service.report import PassReport
from cgnetd.service.session import Session, Surroundings
from cgnetd.service.settings import Settings
from cgnetd.service.sockets import has_congestion

_LABEL_SHARE = 200  # comparing all labels may take 1/200 of the time


@dataclass(slots=True)
class _Pace:
    """When the next comparison of all labels is due. Seconds of the monotonic clock."""

    due_s: float = 0.0

    def spent(self, began_s: float) -> None:
        now_s = time.monotonic()
        self.due_s = now_s + (now_s - began_s) * _LABEL_SHARE


class Reconciler:
    """Keeps the kernel as the policy files ask. Needs closing; closing leaves enforcement on."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        self.settings = settings
        self.features = surroundings.features
        self.root = surroundings.root
        self.source = policy_source(settings, surroundings.features)
        self.session: Session | None = None
        self.running: Generation | None = None
        self.replaced: Generation | None = None  # what the last pass took out of force by putting another one there
        self.live = LiveTables()
        self.loaded_ns = 0  # since 1970, when the generation in force was put there or adopted
        self.hooks: dict[str, str] = {}
        self.last = PassReport()
        self.last_load: PassReport | None = None  # the last pass that put a generation in force
        self.flushed = False
        self.unfinished = False
        self._surroundings = surroundings
        self._slots: list[Generation | None] = [None] * abi.SLOTS
        self._needed: frozenset[str] = frozenset()  # hooks, by the last pass that knew what should be
        self._last_number = 0
        self._pace = _Pace()

    @property
    def asked(self) -> Asked:
        """What the files asked for at the last pass."""
        return self.source.asked

    def look(self, *, force: bool = False, closely: bool = False) -> PassReport:
        """One pass. `closely`: compare all labels, however lately that was done. `force`: that too, read files even if
        they seem unchanged, and end a flushed state.

        Never raises a CgnetdError: what went wrong is in the report, and what was in force is in force still. A pass
        that puts a generation in force ends there and is `unfinished`: the next one takes away what the old one needed.
        """
        with collector_at_rest():
            return self._look(force=force, closely=force or closely)

    def _look(self, *, force: bool, closely: bool) -> PassReport:
        time_ns, began_ns = time.time_ns(), time.monotonic_ns()
        asked = self.source.look(force=force)
        self.flushed = self.flushed and not force
        report = PassReport(
            time_ns=time_ns,
            problems=asked.problems,
            warnings=asked.warnings,
            degraded=asked.weaknesses,
            writing=asked.writing,
        )
        self.replaced = None
        if not self.flushed:
            report = self._converge(report, asked, closely=closely)
        policies = len(self.running.index.policies) if self.running else 0
        self.last = replace(report, duration_ns=time.monotonic_ns() - began_ns, policies=policies)
        if report.loaded:
            self.last_load = self.last
        return self.last

    def use(self, settings: Settings) -> None:
        """Go by these settings from the next pass on: what lies open by the present ones is the same in both."""
        if policy_places(settings) != policy_places(self.settings):
            source = policy_source(settings, self.features)
            source.asked = self.source.asked  # until another set without mistakes is found
            self.source = source
        self.settings = settings

    def flush(self) -> Flushed:
        """Take all enforcement away, until a forced pass. KernelError, PinError, PrivilegeError."""
        removed = flush(Path(self.settings.pin_dir))
        self._close_session()
        self.flushed = True
        return removed

    def hand_over(self) -> None:
        """Leave what is in force to the daemon that comes next, by way of the service manager. KernelError."""
        if self.session is not None and self.running is not None:
            slot = self._slots.index(self.running)
            keep(self.session.links, self.session.store, slot, self.running.index.to_bytes())

    def refresh_live(self) -> tuple[str, ...]:
        """Write at once what changed of devices, addresses and backends. Returns what somebody else had changed in the
        live tables, as sentences. KernelError."""
        return self.live.sync(self.session.store, self._slots) if self.session else ()

    def shares(self) -> dict[tuple[str, int, int], float]:
        """The part of new calls that each backend gets, by (service, family, index). KernelError."""
        if self.session is None or self.running is None or not self.running.index.live.services:
            return {}
        return self.live.shares(self.session.store, self._slots.index(self.running), self.running.index.live)

    @property
    def views(self) -> bool:
        """Whether sockets can hold views: something rewrites, or did since the pins were made."""
        return self.session is not None and bool(self.session.store.control().flags & abi.CONTROL_VIEWS)

    def close(self) -> None:
        self._close_session()
        self.live.close()
        self._surroundings.close()

    # -- what is in force -----------------------------------------------------------------------------------------

    def not_enforcing(self) -> tuple[str, ...]:
        """Why nothing, or not all, is enforced; empty if everything asked for by the generation in force is."""
        if self.flushed:
            return ("everything was flushed; cgnetctl reload enforces again",)
        reasons = []
        if self.running is None:
            empty = self.asked.image is not None and not self.last.error
            reasons.append("there are no policies" if empty else "no generation is in force")
            if self.last.problems:
                reasons.append("the policy files have errors")
        reasons += [f"hook {name}: {state}" for name, state in sorted(self.hooks.items()) if state != RIGHT]
        if self.last.error is not None and (self.running is None or reasons):
            reasons.append(str(self.last.error))
        return tuple(reasons)

    def conflicts(self) -> tuple[Conflict, ...]:
        """With programs of others, at the hooks that should be attached. KernelError, PrivilegeError."""
        links = self.session.links.attached() if self.session else {}
        return find_conflicts(self.root, links, self._needed) if self.session else ()

    def labels_in_force(self) -> tuple[Label, ...]:
        """The labels of all cgroups, as of the last walk."""
        if self.session is None or self.running is None:
            return ()
        return self.session.labels.labels(self._slots.index(self.running))

    def label_of_path(self, path: str) -> Label:
        """The label that a cgroup at this path has, or would have if it came into being. Something must be in force."""
        assert self.running is not None
        return label_at(self.running.reader, path)

    def tree_size(self) -> int:
        """Cgroups below the root, itself included, as of the last walk."""
        return len(self.session.labels.tree) if self.session else 0

    def paths(self) -> Iterator[str]:
        """The path of every cgroup below the root, itself included, as of the last walk."""
        return (cgroup.path for cgroup in self.session.labels.tree.values()) if self.session else iter(())

    def totals(self) -> list[int]:
        """Calls counted by rule, [rule id * 2 + kind]. KernelError."""
        if self.session is None or self.running is None:
            return []
        with self.session.store.slot(self._slots.index(self.running)) as view:
            return view.totals()

    def stats(self) -> tuple[int, ...]:
        """enum cgn_stat. KernelError."""
        return self.session.store.stats() if self.session else (0,) * abi.STAT_COUNT

    # -- one pass -------------------------------------------------------------------------------------------------

    def _converge(self, report: PassReport, asked: Asked, *, closely: bool) -> PassReport:
        before = self.running
        try:
            done = self._steps(asked, closely=closely)
        except CgnetdError as error:
            return replace(report, error=error)
        loaded = done.activated.number if done.activated else 0
        adopted = self.running.number if self.running and before is None and not loaded else 0
        if loaded or adopted:
            self.loaded_ns = time.time_ns()
        return replace(
            report,
            steps=tuple(done.done),
            repaired=tuple(done.repaired),
            loaded=loaded,
            adopted=adopted,
        )

    def _steps(self, asked: Asked, *, closely: bool) -> Application:
        """Observe, plan, apply."""
        session = self._open_session()
        slots = observe_slots(session.store, [known for known in self._slots if known])
        self._know_labels(session, slots)
        in_force = slots[session.store.control().active % abi.SLOTS]
        desired = self._desired(asked, in_force[1])
        settled = desired is not None and desired.digest == in_force[0].digest
        needed = self._needed = desired.hooks if desired is not None else frozenset()
        differences = self._compare_labels(session, closely=closely) if settled and needed else Differences()
        seen_right = frozenset(name for name, state in self.hooks.items() if state == RIGHT)
        seen = observe(session.store, session.links, slots, needed, differences, seen_right=seen_right)
        fresh = None if settled else self._fresh(session, asked, seen)
        mended = self._follow_live(session, slots, fresh)
        done = Application(session, list(seen.slots), fresh, differences, self.live)
        done.repaired += mended
        if self.running is not None and seen.running is not self.running:
            done.repaired.append("what was in force was not what had been put there")
        plan = diff(desired, seen.state) if desired is not None else Plan()
        first = _until_in_force(plan)
        self.unfinished = len(first.steps) < len(plan.steps)
        try:
            done.run(first)
            self.replaced = seen.running if done.activated else None
        finally:
            self._remember(session, seen, done, changed=bool(plan))
        return done

    def _open_session(self) -> Session:
        if self.session is None:
            self.session = Session(self.settings, self._surroundings)
        return self.session

    def _close_session(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None
        self.running = None
        self._slots = [None] * abi.SLOTS
        self.live.reset()
        self.hooks = {}
        self._pace = _Pace()

    def _desired(self, asked: Asked, in_force: Generation | None) -> DesiredState | None:
        """What should be: what the files ask for, or else what is or was in force. None: nothing is known of either."""
        if asked.image is not None:
            return desired_state(self.settings, self._surroundings, asked.image.index)
        kept = in_force or self.running
        return desired_state(self.settings, self._surroundings, kept.index) if kept is not None else None

    def _follow_live(
        self, session: Session, slots: tuple[tuple[SlotState, Generation | None], ...], fresh: Generation | None
    ) -> tuple[str, ...]:
        """Know what is alive and present, and have it in the live tables; returns what somebody had changed there."""
        intact = [found if state.digest else None for state, found in slots]
        active = session.store.control().active % abi.SLOTS
        in_force = intact[active]
        if self.running is None and in_force is not None:
            self.live.adopt(session.store, active, in_force.index.live)
        self.live.follow(known.index.live for known in (*intact, fresh) if known is not None)
        return self.live.sync(session.store, intact)

    def _know_labels(self, session: Session, slots: tuple[tuple[SlotState, Generation | None], ...]) -> None:
        """Labels are written for all slots at once: what is in force must be known before another one is labelled."""
        for slot, (state, found) in enumerate(slots):
            if found is None or not state.generation:
                session.labels.drop(slot)
            elif not session.labels.holds(slot, state.generation):
                session.labels.use(slot, state.generation, found)

    def _compare_labels(self, session: Session, *, closely: bool) -> Differences:
        """Compare all labels with the tree, seldom enough for its cost."""
        began_s = time.monotonic()
        if began_s < self._pace.due_s and not closely:
            return Differences()
        found = session.labels.differences()
        self._pace.spent(began_s)
        return found

    def _fresh(self, session: Session, asked: Asked, seen: Seen) -> Generation | None:
        """The generation to write, should one be needed."""
        number = next_number(self._last_number, *session.store.control().generations)
        if asked.image is not None:
            return of_image(asked.image, number)
        kept = seen.running or self.running
        return renumbered(kept, number) if kept else None

    def _remember(self, session: Session, seen: Seen, done: Application, *, changed: bool) -> None:
        """What the pass has learnt, whether it came to its end or not."""
        control = session.store.control()
        active = control.active % abi.SLOTS
        self._slots = done.slots
        self.running = self._slots[active] if control.generations[active] else None
        self._last_number = max(self._last_number, *control.generations)
        session.relock()
        needed = needed_hooks(self.running.index, self.features) if self.running else frozenset()
        hooks = seen.hooks
        if changed:
            hooks = {name: found.state.value for name, found in session.links.observe(needed).items()}
        self.hooks = {name: hooks.get(name, "missing pin") for name in needed}


def policy_places(settings: Settings) -> tuple[object, ...]:
    """Everything of the settings that a policy source is made by."""
    return settings.policy_dirs, settings.default, settings.limits.image_bytes


def policy_source(settings: Settings, features: Features) -> PolicySource:
    """The policy files of these settings, judged by what this kernel can do."""
    limit_cells = settings.limits.image_bytes // 8
    return PolicySource(
        settings.policy_dirs,
        settings.default,
        limit_cells,
        find_weaknesses=lambda found: degradations(found, features, _has_congestion),
        find_refusals=lambda found: refusals(found, features),
    )


def _has_congestion(name: str) -> bool:
    try:
        return has_congestion(name)
    except CgnetdError:
        return False


def _until_in_force(plan: Plan) -> Plan:
    """The steps up to the one that puts a generation in force, which nobody should wait longer for than needed."""
    for number, step in enumerate(plan.steps, 1):
        if isinstance(step, Activate):
            return Plan(plan.steps[:number])
    return plan
