# SPDX-License-Identifier: Apache-2.0
"""What changes while a generation is in force: devices, addresses, backends. Taken in, written down, acted on, told.

Must not know what wakes it.
"""

from __future__ import annotations

import time

from cgnetd.datapath.live import Live
from cgnetd.errors import CgnetdError
from cgnetd.service.backends import Backends
from cgnetd.service.closing import close_backend_flows
from cgnetd.service.events import Kind, Message
from cgnetd.service.health import Place, Target, targets
from cgnetd.service.host import Host
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.report import message
from cgnetd.service.sinks import EventLog
from cgnetd.service.waiting import Watchman, missing


class Follower:
    """Follows what the generation in force speaks of."""

    def __init__(self, reconciler: Reconciler, log: EventLog) -> None:
        self._reconciler = reconciler
        self._log = log
        self._watchman = Watchman()
        self._backends = Backends(self._close_flows)

    @property
    def host(self) -> Host:
        """Where changes of devices and addresses come from."""
        return self._reconciler.live.host

    def targets(self) -> frozenset[Target]:
        """What is to be probed."""
        return frozenset(targets(self._live()))

    def probed(self, target: Target, error: str) -> bool:
        """A probe ended, `error` "" if somebody answered. False if the kernel refuses what follows: look again."""
        board = self._reconciler.live.board
        if not board.report(target, error, time.time_ns()):
            return True
        done = self._refresh()
        self._log.publish(self._backends.changed(self._live(), board, target))
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
        return self._backends.removed(replaced.index.live, self._live()) if replaced is not None else []

    def _close_flows(self, place: Place, protocol: str) -> int:
        session = self._reconciler.session
        return close_backend_flows(session.store, self._reconciler.features, place, protocol) if session else 0
