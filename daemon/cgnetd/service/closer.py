# SPDX-License-Identifier: Apache-2.0
"""Flows that a worker closes: what is to be told of it waits for the answer, one thing after the other.

The worker is asked only if there are flows to close. Must not know why a backend is left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cgnetd.errors import CgnetdError
from cgnetd.kernel.destroy import Doom
from cgnetd.service.backends import Close
from cgnetd.service.closing import Held, doom_of
from cgnetd.service.events import Message
from cgnetd.service.health import Place
from cgnetd.service.sockets import have_closed
from cgnetd.service.worker import WorkerError

Flows = tuple[Place, str]  # to a backend, of a protocol
Work = Callable[[Close], list[Message]]  # closes flows and makes the messages about it

_ATTEMPTS = 2
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Job:
    flows: tuple[Flows, ...]  # that there are
    work: Work


class RemoteCloser:
    """Does work whose flows the worker closes, in the order in which it came. Lives in one loop; needs closing."""

    def __init__(
        self,
        path: Path,
        pin_dir: Path,
        held: Callable[[], Held | None],
        publish: Callable[[Sequence[Message]], None],
    ) -> None:
        """`held`: flows that there are now; None: nobody knows."""
        self._path = path
        self._pin_dir = pin_dir
        self._held = held
        self._publish = publish
        self._jobs: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None

    def do(self, work: Work) -> None:
        """Have done what closes flows, and publish what it tells; `work` is called twice, and closes none itself."""
        flows = self._present(_flows_of(work))
        if not flows and not self._jobs:
            self._publish(work(_closes({})))
            return
        self._jobs.append(_Job(flows, work))
        self.resume()

    def resume(self) -> None:
        """Go on with what could not be begun before there was a running loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._jobs and (self._task is None or self._task.done()):
            self._task = loop.create_task(self._work_off())

    async def close(self) -> None:
        """Stop, and tell of what was not done."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._jobs:
            self._finish(WorkerError("cgnetd stops"))

    async def _work_off(self) -> None:
        while self._jobs:
            self._finish(await self._close_flows(self._jobs[0].flows))

    def _finish(self, closed: Sequence[int | CgnetdError] | CgnetdError) -> None:
        job = self._jobs.popleft()
        if isinstance(closed, CgnetdError):
            closed = [closed] * len(job.flows)
        dooms = (doom_of(*one) for one in job.flows)
        self._publish(job.work(_closes(dict(zip(dooms, closed, strict=True)))))

    async def _close_flows(self, flows: Sequence[Flows]) -> Sequence[int | CgnetdError] | CgnetdError:
        if not flows:
            return ()
        dooms = [doom_of(*one) for one in flows]
        trouble: CgnetdError = WorkerError("")
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(_PAUSE_S if attempt else 0)
            try:
                return await have_closed(self._path, self._pin_dir, dooms)
            except WorkerError as error:
                trouble = error
        return trouble

    def _present(self, flows: Sequence[Flows]) -> tuple[Flows, ...]:
        held = self._held() if flows else None
        return tuple(one for one in flows if held is None or held.any(*one))


def _flows_of(work: Work) -> list[Flows]:
    asked: list[Flows] = []

    def note(place: Place, protocol: str) -> int:
        asked.append((place, protocol))
        return 0

    work(note)
    return asked


def _closes(closed: dict[Doom, int | CgnetdError]) -> Close:
    """Flows that are not among these there are none of."""

    def close(place: Place, protocol: str) -> int:
        found = closed.get(doom_of(place, protocol), 0)
        if isinstance(found, CgnetdError):
            raise found
        return found

    return close
