# SPDX-License-Identifier: Apache-2.0
"""From the kernel's records to published events: the ring as it fills, and what was left in the table of flows.

Must not know when it is called, nor what records mean.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from cgnetd.datapath import abi
from cgnetd.kernel.store import Store
from cgnetd.service.audit import Auditor
from cgnetd.service.crowd import Crowd, Told
from cgnetd.service.events import Kind, Record
from cgnetd.service.report import message
from cgnetd.service.sinks import EventLog

_BATCH = 1024  # records published at once


class Pump:
    """Reads one store's events. Needs closing."""

    def __init__(self, store: Store, auditor: Auditor, log: EventLog, window_ns: int) -> None:
        self.store = store
        self._auditor = auditor
        self._log = log
        self._window_ns = window_ns
        self._batch: list[bytes] = []
        self._crowd = Crowd()
        self._ring = store.ring(self._batch.append)
        self._lost = store.stats()[abi.STAT_LOST]

    @property
    def fd(self) -> int:
        """Readable when the ring holds records."""
        return self._ring.epoll_fd

    def read(self) -> int:
        """Publish what is in the ring, at most one batch, so that a full ring does not hold everything else up."""
        count = self._ring.consume(_BATCH)
        self._publish()
        return count

    def sweep(self) -> bool:
        """Publish the flows that no record tells any more, and drop idle ones; then what was gathered. False if none
        were left to wait for."""
        self._batch += self.store.drain_flows(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._window_ns)
        self._publish()
        self._tell(self._crowd.release(hold=self._log.behind))
        return self.waiting()

    @property
    def is_late(self) -> bool:
        """Whether a sweep left something to `catch_up` with."""
        return self._crowd.is_late

    def catch_up(self) -> None:
        """Publish what a sweep had no room for."""
        if not self._log.behind:
            self._tell(self._crowd.overdue())

    def untold(self) -> list[Record]:
        """What the table of flows holds that is in no event yet; it stays there."""
        flows = self.store.maps["flows"]
        batch = []
        for key in flows.keys():  # noqa: SIM118 - a map of the kernel, not a mapping
            value = flows.lookup(key) or b""
            rest = _untold(value)
            if rest:
                batch.append(abi.FLOW_RECORD.pack(abi.RECORD_FLOW, 0, rest, key, value))
        return self._auditor.records(batch)

    def waiting(self) -> bool:
        """Whether there are flows that a later sweep will have to look at."""
        return self._crowd.waiting or next(self.store.maps["flows"].keys(), None) is not None

    def check_losses(self) -> None:
        """Tell of calls that are counted by rule, but in no event."""
        lost = self.store.stats()[abi.STAT_LOST] + self._crowd.lost
        if lost > self._lost:
            text = f"{lost - self._lost} calls are in no event: too many different ones within a window"
            self._log.publish([message(Kind.EVENTS_LOST, text, lost=lost - self._lost, lost_total=lost)])
        self._lost = lost

    def close(self) -> None:
        self._tell(self._crowd.rest())
        self._ring.close()

    def _publish(self) -> None:
        batch = list(self._batch)
        self._batch.clear()
        self._tell(self._crowd.admit(self._auditor.sightings(batch), gather=self._log.behind))

    def _tell(self, seen: Sequence[Told]) -> None:
        self._log.publish(self._auditor.named(seen))


def _untold(value: bytes) -> int:
    """Calls of one flow that no event tells yet."""
    if len(value) != abi.FLOW_VALUE.size:
        return 0
    count, reported, *_ = abi.FLOW_VALUE.unpack(value)
    return max(0, int(count) - int(reported))
