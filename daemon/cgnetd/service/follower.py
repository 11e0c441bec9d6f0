# SPDX-License-Identifier: Apache-2.0
"""What changes while a generation is in force: devices, addresses, backends. Taken in, written down, acted on, told.

Must not know what wakes it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cgnetd.datapath.live import Live
from cgnetd.errors import CgnetdError
from cgnetd.service.backends import Backends, Close
from cgnetd.service.closer import RemoteCloser, Work
from cgnetd.service.closing import Held, close_backend_flows, held_flows
from cgnetd.service.events import Kind, Message
from cgnetd.service.health import Board, Place, Target, places, targets
from cgnetd.service.host import Host
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.report import message
from cgnetd.service.sinks import EventLog
from cgnetd.service.waiting import Watchman, missing
from cgnetd.service.worker import SOCKETS, path_of

SETTLE_S = 0.05  # that many backends may keep the loop from everything else


class Follower:
    """Follows what the generation in force speaks of."""

    def __init__(self, reconciler: Reconciler, log: EventLog) -> None:
        self._reconciler = reconciler
        self._log = log
        self._watchman = Watchman()
        self._backends = Backends(self._close_flows)
        self._changed: dict[Target, None] = {}  # died or came back, and nothing followed from it yet, in order
        self._written = True  # whether the live tables know of all of these
        self._held: Held | None = None  # what flows there are, if that was looked at for all backends at once
        path = path_of(SOCKETS)
        pin_dir = Path(reconciler.settings.pin_dir)
        self._closer = None if path is None else RemoteCloser(path, pin_dir, self._held_now, log.publish)

    @property
    def host(self) -> Host:
        """Where changes of devices and addresses come from."""
        return self._reconciler.live.host

    def targets(self) -> frozenset[Target]:
        """What is to be probed."""
        return frozenset(targets(self._live()))

    def probed(self, target: Target, error: str) -> bool:
        """A probe ended, `error` "" if somebody answered. Whether there is something to settle now."""
        if self._reconciler.live.board.report(target, error, time.time_ns()):
            self._written = False
            if target in self._changed:  # as it was when the world was told last
                del self._changed[target]
            else:
                self._changed[target] = None
        return self.unsettled

    def unprobed(self, why: str) -> None:
        """Backends stay what they are, for nobody probes them; "": they are probed again."""
        if why == self._reconciler.live.unprobed:
            return
        self._reconciler.live.unprobed = why
        if why:
            text = f"backends are not probed, and stay what they are: {why}"
            self._log.publish([message(Kind.PROBES_FAILED, text, error=why)])
        else:
            self._log.publish([message(Kind.PROBES_RESUMED, "backends are probed again")])

    def resume(self) -> None:
        """In the running loop: go on with what a worker is to do."""
        if self._closer is not None:
            self._closer.resume()

    async def close(self) -> None:
        """Wait for nothing any more."""
        if self._closer is not None:
            await self._closer.close()

    @property
    def unsettled(self) -> bool:
        """Whether backends died or came back, and not all that follows from it was done."""
        return bool(self._changed) or not self._written

    def settle(self) -> bool:
        """Do what follows from it: first the live tables for all of them, then flows and messages, one backend after
        the other, for about SETTLE_S. To be called again while `unsettled`. False if the kernel refuses: look again."""
        done = self._written or self._refresh()
        self._written = True
        live, board = self._live(), self._reconciler.live.board
        if self._closer is not None:
            self._closer.do(_all_changed(live, board.copy(), tuple(self._changed)))
            self._changed.clear()
            return done
        until_s = time.monotonic() + SETTLE_S
        with self._looking_at_once(len(self._changed)):
            while self._changed and time.monotonic() < until_s:
                target = next(iter(self._changed))
                del self._changed[target]
                self._log.publish(self._backends.changed(live, board, target, self._changed))
        return done

    def host_changed(self) -> bool:
        """Take in what changed of the host's devices and addresses. False if that cannot be done: look again."""
        try:
            self.host.read()
        except CgnetdError:
            self.host.close()
            return False
        done = self._refresh()
        self._log.publish(self._waiting())
        return done

    def passed(self) -> list[Message]:
        """After a pass: what the world is to be told of devices, addresses and backends that were left behind."""
        return [*self._waiting(), *self._left()]

    def _live(self) -> Live:
        """Of the generation in force."""
        running = self._reconciler.running
        return running.index.live if running is not None else Live()

    def _refresh(self) -> bool:
        """Have what is alive and present in the live tables. False if the kernel refuses."""
        try:
            mended = self._reconciler.refresh_live()
        except CgnetdError:
            return False
        if mended:
            text = f"repaired drift: {'; '.join(mended)}"
            self._log.publish([message(Kind.DRIFT_REPAIRED, text, repaired=list(mended))])
        return True

    def _waiting(self) -> list[Message]:
        live = self._live()
        return list(self._watchman.messages(live, missing(live, self.host)))

    def _left(self) -> list[Message]:
        """The backends that a pass has left behind."""
        replaced = self._reconciler.replaced
        if replaced is None:
            return []
        before, now = replaced.index.live, self._live()
        if self._closer is not None:
            self._closer.do(lambda close: Backends(close).removed(before, now))
            return []
        with self._looking_at_once(sum(1 for _ in places(before))):
            return self._backends.removed(before, now)

    @contextmanager
    def _looking_at_once(self, count: int) -> Iterator[None]:
        """Look for the flows of so many backends once: to look for those of each takes long."""
        if count > 1:
            self._held = self._held_now()
        try:
            yield
        finally:
            self._held = None

    def _held_now(self) -> Held | None:
        """None if the kernel does not tell."""
        session = self._reconciler.session
        with suppress(CgnetdError):
            return held_flows(session.store) if session is not None else None
        return None

    def _close_flows(self, place: Place, protocol: str) -> int:
        session = self._reconciler.session
        if session is None or (self._held is not None and not self._held.any(place, protocol)):
            return 0
        return close_backend_flows(session.store, self._reconciler.features, place, protocol)


def _all_changed(live: Live, board: Board, changed: Sequence[Target]) -> Work:
    """What follows from all of these, which died or came back."""

    def work(close: Close) -> list[Message]:
        backends, later = Backends(close), dict.fromkeys(changed)
        told = []
        for target in changed:
            del later[target]
            told += backends.changed(live, board, target, later)
        return told

    return work
