# SPDX-License-Identifier: Apache-2.0
"""When things happen: one asyncio loop over file events, kernel events, the control socket, signals and timers.

Idle, nothing wakes it but the regular pass. Must not know what a pass does, nor what the verbs answer.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

from cgnetd.errors import SettingsError
from cgnetd.kernel.flush import Flushed
from cgnetd.kernel.netlink import HostLinks
from cgnetd.service.control import ControlServer
from cgnetd.service.daemon import Daemon, Reload
from cgnetd.service.events import FlowEvent
from cgnetd.service.health import Target
from cgnetd.service.listener import Listener
from cgnetd.service.notify import Notifier
from cgnetd.service.probing import probes
from cgnetd.service.pump import Pump
from cgnetd.service.recheck import Recheck
from cgnetd.service.report import PassReport
from cgnetd.service.watch import Debounce, Watch

CATCH_UP_S = 1.0
PAUSE_S = 0.02  # between two looks at the ring: a storm wakes nobody for each of its records


class Loop:
    """Drives a daemon until a signal says stop."""

    def __init__(self, daemon: Daemon, notifier: Notifier) -> None:
        self._daemon = daemon
        self._notifier = notifier
        # A pass is a sign of life: at most half the time may go by in which a watchdog wants one.
        self._longest_s = None if notifier.watchdog_s is None else notifier.watchdog_s / 2
        self._watch = Watch()
        self._debounce = Debounce()
        self._recheck = Recheck()
        self._pump: Pump | None = None
        self._events_fd = -1
        self._links: HostLinks | None = None
        self._links_fd = -1
        self._follower = daemon.follower
        self._prober = probes(self._on_probe, self._follower.unprobed)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopped = asyncio.Event()

    async def run(self, listener: Listener, server: ControlServer) -> None:
        """Serve until SIGTERM or SIGINT. The first pass has been made already."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_reader(self._watch.fd, self._on_files)
        await server.start(listener.socket, for_root_alone=listener.gid is None)
        try:
            self._follow_up()
            self._sweep()
            self._notifier.ready(self._daemon.summary())
            await self._stopped.wait()
            self._notifier.stopping()
        finally:
            await server.close()
            await self._prober.close()
            await self._follower.close()
            self._close()

    def look(self, *, force: bool = False, closely: bool = False) -> PassReport:
        """One pass now, and all that follows from it."""
        self._cancel("debounce")
        self._debounce.clear()
        try:
            return self._daemon.look(force=force, closely=closely)
        finally:
            self._follow_up()

    def reload(self) -> Reload:
        """Settings and policies anew, and all that follows from it. SettingsError."""
        self._cancel("debounce")
        self._debounce.clear()
        try:
            return self._daemon.reload()
        finally:
            self._follow_up()

    def flush(self) -> Flushed:
        """Take all enforcement away, and follow what is left."""
        try:
            return self._daemon.flush()
        finally:
            self._follow_up()

    def calls(self) -> Sequence[FlowEvent]:
        """Every call that is remembered."""
        return self._daemon.calls()

    def _follow_up(self) -> None:
        """After a pass: watch what there is to watch now, listen to the events of now, set the clock."""
        if self._daemon.lost is not None:
            self._stopped.set()
        self._daemon.watch(self._watch)
        self._listen()
        self._listen_to_host()
        self._prober.follow(self._follower.targets())
        self._follower.resume()
        next_s = self._daemon.next_look_s(self._daemon.reconciler.settings.limits.reconcile_interval / 1e9)
        self._at("look", next_s if self._longest_s is None else min(next_s, self._longest_s), self._on_tick)
        self._follow_log()

    def _on_tick(self) -> None:
        self._daemon.catch_up()
        self.look()

    def _catch_up(self) -> None:
        self._cancel("catch-up")
        self._daemon.catch_up()
        self._follow_log()

    def _follow_log(self) -> None:
        """Come back soon to what the log's reader has not taken yet."""
        if self._daemon.is_late and "catch-up" not in self._timers:
            self._at("catch-up", CATCH_UP_S, self._catch_up)

    def _on_hangup(self) -> None:
        with suppress(SettingsError):  # told, and nobody else waits for an answer
            self.reload()

    @property
    def _window_s(self) -> float:
        return self._daemon.reconciler.settings.audit.window / 1e9

    def _on_files(self) -> None:
        now = asyncio.get_running_loop().time()
        self._debounce.note(self._watch.read(), now)
        if self._debounce.deadline is not None:
            self._at("debounce", self._debounce.deadline - now, self.look)

    def _on_events(self) -> None:
        self._daemon.read_events()
        asyncio.get_running_loop().remove_reader(self._events_fd)
        self._at("events", PAUSE_S, self._listen_again)
        if "sweep" not in self._timers:
            self._at("sweep", self._window_s, self._sweep)
        self._follow_log()
        self._doubt()

    def _listen_again(self) -> None:
        self._cancel("events")
        if self._events_fd >= 0 and self._daemon.pump is self._pump:  # closed after a failure, until the next pass
            asyncio.get_running_loop().add_reader(self._events_fd, self._on_events)

    def _sweep(self) -> None:
        self._cancel("sweep")
        if self._daemon.sweep():
            self._at("sweep", self._window_s, self._sweep)
        self._follow_log()
        self._doubt()

    def _doubt(self) -> None:
        """Look soon if a call met what cannot be right, rather than at the next regular pass."""
        if self._daemon.take_doubt() and "doubt" not in self._timers:
            self._at("doubt", self._recheck.delay_s(asyncio.get_running_loop().time()), self._look_closely)

    def _look_closely(self) -> None:
        self._cancel("doubt")
        repaired = bool(self.look(closely=True).repaired)
        self._recheck.looked(asyncio.get_running_loop().time(), repaired=repaired)

    def _listen(self) -> None:
        """Follow the ring of the pins as they are now."""
        loop = asyncio.get_running_loop()
        pump = self._daemon.pump
        if pump is self._pump:
            return
        # Not by number: a new ring may have got the old one's descriptor, which no longer is what was listened to.
        if self._events_fd >= 0:
            loop.remove_reader(self._events_fd)
        self._pump = pump
        self._events_fd = pump.fd if pump is not None else -1
        self._listen_again()

    def _listen_to_host(self) -> None:
        """Follow devices and addresses for as long as what is in force speaks of some."""
        loop = asyncio.get_running_loop()
        links = self._follower.host.links
        if links is self._links:
            return
        if self._links_fd >= 0:
            loop.remove_reader(self._links_fd)
        self._links = links
        self._links_fd = links.fd if links is not None else -1
        if self._links_fd >= 0:
            loop.add_reader(self._links_fd, self._on_host)

    def _on_host(self) -> None:
        if not self._follower.host_changed():
            self.look()
        self._daemon.tell_status()

    def _on_probe(self, target: Target, error: str) -> None:
        if self._follower.probed(target, error) and "backends" not in self._timers:
            self._at("backends", 0.0, self._settle)

    def _settle(self) -> None:
        self._cancel("backends")
        if not self._follower.settle():
            self._at("look", 0.0, self._on_tick)
        if self._follower.unsettled:
            self._at("backends", 0.0, self._settle)
        else:
            self._daemon.tell_status()

    def _at(self, name: str, delay_s: float, action: Callable[[], object]) -> None:
        self._cancel(name)
        self._timers[name] = asyncio.get_running_loop().call_later(max(delay_s, 0.0), action)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for name in tuple(self._timers):
            self._cancel(name)
        for fd in (self._watch.fd, self._events_fd, self._links_fd):
            if fd >= 0:
                loop.remove_reader(fd)
        self._watch.close()
