# SPDX-License-Identifier: Apache-2.0
"""The daemon's work between two waits: a pass and what it tells the world, and the events of the kernel.

Must not know what wakes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cgnetd.errors import CgnetdError, PolicyError, SettingsError
from cgnetd.kernel import bpffs
from cgnetd.kernel.bpffs import OutOfReachError
from cgnetd.kernel.flush import Flushed
from cgnetd.service.audit import Auditor
from cgnetd.service.cgroup_paths import CgroupPaths
from cgnetd.service.conflicts import ConflictTeller, is_held
from cgnetd.service.events import FlowEvent, Kind, Message, Record
from cgnetd.service.follower import Follower
from cgnetd.service.memory import shrink
from cgnetd.service.notify import Notifier
from cgnetd.service.policy_source import Asked
from cgnetd.service.pump import Pump
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.report import Announcer, PassReport, message
from cgnetd.service.settings import Settings
from cgnetd.service.settings_change import SettingsChange, change
from cgnetd.service.sinks import EventLog
from cgnetd.service.summary import state_of, summary
from cgnetd.service.watch import Watch

_RETRY_FIRST_S = 1.0
_RETRY_LONGEST_S = 60.0
_PASSES_TO_FINISH = 3


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload did: the pass that it made, and what became of the settings."""

    report: PassReport
    settings: SettingsChange


class Daemon:
    """Reconciler, events and the log, tied together. Needs closing; closing leaves enforcement on."""

    def __init__(
        self, reconciler: Reconciler, log: EventLog, notifier: Notifier, read_settings: Callable[[], Settings]
    ) -> None:
        """`read_settings`: as they are now, where the present ones came from; raises SettingsError."""
        self.reconciler = reconciler
        self._read_settings = read_settings
        self._settings_errors: tuple[str, ...] = ()
        self._waiting: tuple[str, ...] = ()  # settings that need a restart, as told last
        self.log = log
        self.notifier = notifier
        self._announcer = Announcer()
        self._conflicts = ConflictTeller()
        root = reconciler.root
        self._auditor = Auditor(CgroupPaths(root.id, root.path_of))
        self._pump: Pump | None = None
        self._doubts = 0
        self._dropped = 0  # records of the log that the world was told of
        self._retry_s = 0.0
        self._shrunk_after: Asked | None = None
        self._enforcing: bool | None = None
        self.follower = Follower(reconciler, log)

    def begin(self, *, once: bool) -> PassReport:
        """The first pass. What leaves no reason to go on is raised and not announced: whoever started us is told.

        That is what the kernel refuses while nothing of ours is in force, and with `once` everything. A hook that
        somebody else holds is waited for: `status` tells who. CgnetdError.
        """
        fresh = bpffs.is_fresh(Path(self.reconciler.settings.pin_dir))
        report = self.reconciler.look()
        idle = self.reconciler.running is None
        if report.error is not None and (once or (idle and not is_held(self.reconciler))):
            if fresh and idle:  # what was made so far is of no use to anybody
                with suppress(CgnetdError):
                    self.reconciler.flush()
            raise report.error
        if once and report.problems and idle:
            raise PolicyError(report.problems)
        return self._complete(replace(report, problems=()) if once else report)

    def look(self, *, force: bool = False, closely: bool = False) -> PassReport:
        """One pass, announced. `force`: files that seem unchanged are read too, a flushed daemon enforces again.
        `closely`: every label is compared."""
        return self._complete(self.reconciler.look(force=force, closely=closely))

    def reload(self) -> Reload:
        """Settings and policies are read again. SettingsError for bad settings: then nothing was done, but told."""
        self.notifier.reloading()
        try:
            settings = self._take_settings()
            return Reload(self.look(force=True), settings)
        finally:
            self.notifier.ready(self.summary())

    def _take_settings(self) -> SettingsChange:
        try:
            changed = change(self.reconciler.settings, self._read_settings())
        except SettingsError as error:
            self._settings_errors = tuple(str(error).splitlines())
            text = f"settings rejected, those of before stay: {'; '.join(self._settings_errors)}"
            self.log.publish([message(Kind.SETTINGS_REJECTED, text, error=str(error))])
            raise
        self._settings_errors = ()
        if changed.taken:
            self.reconciler.use(changed.settings)
            self._drop_pump()  # the next one minds the window of now
        if changed.taken or changed.waiting != self._waiting:
            self.log.publish([_changed(changed)])
        self._waiting = changed.waiting
        return changed

    def _complete(self, report: PassReport) -> PassReport:
        """All that follows from a pass."""
        self._shrink()
        if self.lost is None:  # what follows is told by `hand_over`
            self._announce(report)
        self._follow_session()
        failed = report.error is not None
        self._retry_s = min(max(2 * self._retry_s, _RETRY_FIRST_S), _RETRY_LONGEST_S) if failed else 0.0
        self.notifier.alive()
        return report

    def _shrink(self) -> None:
        """Give back what reading other files took, when nobody waits for it."""
        if self._shrunk_after is not self.reconciler.asked and not self.reconciler.unfinished:
            self._shrunk_after = self.reconciler.asked
            shrink()

    def finish(self) -> None:
        """Make the passes that an unfinished one left to be made."""
        for _ in range(_PASSES_TO_FINISH):
            if not self.reconciler.unfinished or self.reconciler.last.error is not None:
                return
            self.look()

    def next_look_s(self, interval_s: float) -> float:
        """When to look again: regularly, later and later while the kernel refuses, soon for a file being written."""
        if self.reconciler.unfinished and not self._retry_s:
            return 0.0
        if self.reconciler.last.writing:
            return min(_RETRY_FIRST_S, interval_s)
        return self._retry_s or interval_s

    def flush(self) -> Flushed:
        """Take all enforcement away until a forced pass. KernelError, PinError, PrivilegeError."""
        self._drop_pump()
        removed = self.reconciler.flush()
        text = "flushed: nothing is enforced until the next reload"
        self.log.publish([message(Kind.FLUSHED, text, links=list(removed.links))])
        self._enforcing = False
        self.tell_status()
        return removed

    def watch(self, watch: Watch) -> None:
        """Say which files and pins to watch, as of the last pass."""
        reconciler = self.reconciler
        watch.follow(
            directories=reconciler.settings.policy_dirs,
            files=reconciler.source.paths(),
            trees=(reconciler.settings.pin_dir,) if reconciler.session else (),
        )

    @property
    def undecodable(self) -> int:
        """Records of the kernel that nobody could read."""
        return self._auditor.undecodable

    @property
    def lost(self) -> OutOfReachError | None:
        """Why to be started anew: the pins were removed, and cannot be made again from where this process runs."""
        error = self.reconciler.last.error
        return error if isinstance(error, OutOfReachError) and self.notifier.is_heard else None

    def hand_over(self) -> None:
        """Leave what is in force to the daemon that is started next, by way of the service manager. KernelError."""
        text = "the pin directory was removed; cgnetd is started anew to make it again, what is in force stays in force"
        self.log.publish([message(Kind.PINS_LOST, text, error=str(self.reconciler.last.error))])
        self.reconciler.hand_over()

    def take_doubt(self) -> bool:
        """Whether events since the last question say that the kernel's tables are not as they should be."""
        known, self._doubts = self._doubts, self._auditor.doubts
        return self._doubts > known

    @property
    def pump(self) -> Pump | None:
        """Where the kernel's events come from; another one after some passes, None while none can come."""
        return self._pump

    def read_events(self) -> None:
        """Publish what the kernel reports."""
        if self._pump is not None:
            with self._failing_pump():
                self._pump.read()

    def sweep(self) -> bool:
        """Publish what no event told. Whether another sweep is needed, a window later."""
        if self._pump is None:
            return False
        with self._failing_pump():
            self._pump.check_losses()
            return self._pump.sweep()
        return False

    def calls(self) -> list[FlowEvent]:
        """Every call that is remembered, told or not."""
        self.read_events()
        untold: list[Record] = []
        if self._pump is not None:
            with self._failing_pump():
                untold = self._pump.untold()
        return [record for record in (*self.log.recent(), *untold) if isinstance(record, FlowEvent)]

    @property
    def is_late(self) -> bool:
        """Whether something waits to be told as soon as it will be taken: `catch_up` then."""
        return self.log.kept or (self._pump is not None and self._pump.is_late)

    def catch_up(self) -> None:
        """Tell what could not be told before, and what never will be."""
        self.log.flush()
        if self._pump is not None:
            self._pump.catch_up()
        dropped = self.log.dropped - self._dropped
        if dropped and not self.log.behind:
            text = f"{dropped} records were not taken by the reader of the log"
            self.log.publish([message(Kind.EVENTS_LOST, text, records=dropped)])
            self._dropped = self.log.dropped

    def summary(self) -> str:
        """One line for the service manager."""
        return summary(state_of(self.reconciler, self._settings_errors))

    def tell_status(self) -> None:
        """Have the service manager show how things are now."""
        self.notifier.status(self.summary())

    def close(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.reconciler.close)
            stack.callback(self._drop_pump)

    def _announce(self, report: PassReport) -> None:
        records = list(self._announcer.messages(report))
        reasons = self.reconciler.not_enforcing()
        if reasons and self._enforcing is not False:
            records.append(message(Kind.NOT_ENFORCING, f"not enforcing: {'; '.join(reasons)}", reasons=list(reasons)))
        with suppress(CgnetdError):
            records += self._conflicts.messages(self.reconciler.conflicts())
        self._enforcing = not reasons
        self.tell_status()
        self.log.publish([*records, *self.follower.passed()])
        self.log.flush()

    @contextmanager
    def _failing_pump(self) -> Iterator[None]:
        """Events that cannot be read must not end the daemon: the next pass begins to read anew."""
        try:
            yield
        except (CgnetdError, OSError) as error:
            text = f"events cannot be read, tried again after the next pass: {error}"
            self.log.publish([message(Kind.EVENTS_LOST, text, error=str(error))])
            if self._pump is not None:
                self._pump.close()
                self._pump = None

    def _drop_pump(self) -> None:
        """Take the last events and let the ring go."""
        self.read_events()
        if self._pump is not None:
            self._pump.close()
            self._pump = None

    def _follow_session(self) -> None:
        """Read the events of the pins as they are now, and know the names of the generation in force."""
        session = self.reconciler.session
        if self._pump is not None and (session is None or session.store is not self._pump.store):
            self._drop_pump()
        if session is not None and self._pump is None:
            window_ns = self.reconciler.settings.audit.window
            self._pump = Pump(session.store, self._auditor, self.log, window_ns)
        running = self.reconciler.running
        if running is not None:
            self._auditor.learn(running.index)


def _changed(settings: SettingsChange) -> Message:
    """What a reload found changed in the settings."""
    taken, waiting = ", ".join(settings.taken) or "none", ", ".join(settings.waiting)
    text = f"settings changed: {taken}" + (f"; need a restart: {waiting}" if waiting else "")
    return message(Kind.SETTINGS_CHANGED, text, changed=list(settings.taken), waiting=list(settings.waiting))
