# SPDX-License-Identifier: Apache-2.0
"""What keeps a storm of calls to many places from becoming a storm of records: the first are told one by one, the rest
together, with exact counts.

Two bounds. Of one crowd (calls that differ only in where they went) `EACH` events pass between two releases, the others
become one. Of everybody together no more pass than the journal takes: journald by default throws away what one service
writes beyond 10,000 entries in 30 seconds. Must not know where events come from nor where they go.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from cgnetd.service.audit import Sighting
from cgnetd.service.events import Message

EACH = 32
BURST = 1000  # records at once, after a quiet time
RATE = 100  # records a second from then on: 4000 in any 30 seconds
CROWDS_MAX = 4096  # that wait at once

Told = Sighting | Message


class Crowd:
    """Lets records through or gathers them. `clock`: seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._room = float(BURST)
        self._filled_at = clock()
        self._passed: Counter[bytes] = Counter()  # events since the last release
        self._gathered: OrderedDict[bytes, Sighting] = OrderedDict()
        self._due = 0  # of those, the oldest ones, that have waited for a window already
        self.lost = 0  # calls that found no room to be gathered

    def admit(self, records: Iterable[Told], *, gather: bool = False) -> list[Told]:
        """Those to be told now. Messages always are. `gather`: keep all events together, nobody takes them now."""
        self._refill()
        return [record for record in records if self._passes(record, gather)]

    def release(self, *, hold: bool = False) -> list[Told]:
        """A new start for everybody, once a window: what was gathered until now, as far as there is room. `hold`:
        nothing yet."""
        self._passed.clear()
        self._due = len(self._gathered)
        return [] if hold else self.overdue()

    def overdue(self) -> list[Told]:
        """What a release left for want of room, as far as there is room now."""
        self._refill()
        found: list[Told] = []
        while self._due and self._room >= 1:
            found.append(self._gathered.popitem(last=False)[1])
            self._due -= 1
            self._room -= 1
        return found

    @property
    def is_late(self) -> bool:
        """Whether something is overdue."""
        return self._due > 0

    def rest(self) -> list[Told]:
        """Everything gathered, whether there is room or not: nobody will ask again."""
        found: list[Told] = list(self._gathered.values())
        self._gathered.clear()
        self._due = 0
        return found

    @property
    def waiting(self) -> bool:
        """Whether something is gathered."""
        return bool(self._gathered)

    def _refill(self) -> None:
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._filled_at) * RATE)
        self._filled_at = now

    def _passes(self, record: Told, gather: bool) -> bool:
        if isinstance(record, Sighting):
            crowd = record.flow.crowd
            if gather or crowd in self._gathered or self._passed[crowd] >= EACH or self._room < 1:
                self._gather(crowd, record)
                return False
            self._passed[crowd] += 1
        self._room -= 1
        return True

    def _gather(self, crowd: bytes, seen: Sighting) -> None:
        before = self._gathered.get(crowd)
        if before is None and len(self._gathered) >= CROWDS_MAX:
            self.lost += seen.flow.calls
        else:
            self._gathered[crowd] = before.with_later(seen) if before is not None else seen
