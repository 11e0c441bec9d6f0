# SPDX-License-Identifier: Apache-2.0
"""Probes made by a worker: what it is told to follow, and what it tells.

A worker that fails kills no backend: there are no probes then, it is said why, and the worker is tried again, later and
later. Must not know how a probe is made, nor what follows from one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Protocol

from cgnetd.service.health import Target
from cgnetd.service.prober import Prober
from cgnetd.service.worker import PROBER, Channel, Fields, WorkerError, pack, path_of, unpack

_RETRY_FIRST_S = 1.0
_RETRY_LONGEST_S = 60.0
_SILENCE_S = 10.0  # beyond the time in which every probe must have ended twice
_UNREAD_BYTES = 1024 * 1024  # beyond which a visitor that does not read is told nothing more
_FIELDS = 6  # of a Target

Report = Callable[[Target, str], None]
Trouble = Callable[[str], None]


class Probes(Protocol):
    """Probes what it is told to. Lives in one loop; needs closing."""

    def follow(self, targets: Iterable[Target]) -> None: ...

    async def close(self) -> None: ...


def probes(report: Report, trouble: Trouble) -> Probes:
    """By the worker if there is one, else by this process. `report`: with each result; `trouble`: why there are none,
    "" when there are again."""
    path = path_of(PROBER)
    return Prober(report) if path is None else RemoteProber(path, report, trouble)


class RemoteProber:
    """The worker is there for as long as there is something to probe."""

    def __init__(
        self,
        path: Path,
        report: Report,
        trouble: Trouble,
        *,
        retry_s: float = _RETRY_FIRST_S,
        slack_s: float = _SILENCE_S,
    ) -> None:
        """`retry_s`: until the first new attempt. `slack_s`: for which the worker may be late."""
        self._path = path
        self._report = report
        self._trouble = trouble
        self._first_retry_s = retry_s
        self._slack_s = slack_s
        self._targets: frozenset[Target] = frozenset()
        self._told: frozenset[Target] = frozenset()
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, targets: Iterable[Target]) -> None:
        """Probe these and no others. In the running loop."""
        self._targets = frozenset(targets)
        if not self._targets:
            self._end()
        elif self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())
        else:
            self._tell()

    async def close(self) -> None:
        """End all probes."""
        task = self._end()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def _end(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._trouble("")
        return task

    async def _keep(self) -> None:
        """Have a worker, again and again."""
        retry_s = self._first_retry_s
        while True:
            began_s = asyncio.get_running_loop().time()
            try:
                await self._listen()
            except WorkerError as error:
                self._trouble(str(error))
            finally:
                self._let_go()
            if asyncio.get_running_loop().time() - began_s > _RETRY_LONGEST_S:
                retry_s = self._first_retry_s  # it worked for long
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _RETRY_LONGEST_S)

    async def _listen(self) -> None:
        """Follow and report until the worker fails. WorkerError."""
        self._channel = channel = await Channel.open(PROBER, self._path)
        self._tell()
        while True:
            target, error = _result(await channel.receive(self._patience_s()))
            self._trouble("")
            if target in self._targets:
                self._report(target, error)

    def _patience_s(self) -> float:
        """Within which somebody must have been probed."""
        longest_ns = max((target.interval_ns + target.timeout_ns for target in self._targets), default=0)
        return 2 * longest_ns / 1e9 + self._slack_s

    def _tell(self) -> None:
        if self._channel is not None and self._told != self._targets:
            self._channel.send(following(self._targets))
            self._told = self._targets

    def _let_go(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        self._told = frozenset()


def following(targets: Iterable[Target]) -> Fields:
    """What a worker is told to probe, and nothing else from then on."""
    return {"follow": [astuple(target) for target in sorted(targets)]}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The worker's end of one connection: probe what it is told to until it closes. ValueError for what is no wish."""

    def report(target: Target, error: str) -> None:
        if writer.transport.get_write_buffer_size() < _UNREAD_BYTES:
            writer.write(pack({"probed": astuple(target), "error": error}))

    prober = Prober(report)
    try:
        while line := await reader.readline():
            prober.follow(_targets(unpack(line)))
    finally:
        await prober.close()


def _targets(said: Fields) -> list[Target]:
    wanted = said.get("follow")
    if not isinstance(wanted, list):
        raise ValueError("nothing to follow is named")
    return [_target(values) for values in wanted]


def _target(values: object) -> Target:
    if not isinstance(values, list) or len(values) != _FIELDS:
        raise ValueError("a target has six values")
    address, *numbers = values
    if not isinstance(address, str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a target is an address and numbers")
    return Target(address, *numbers)


def _result(said: Mapping[str, object]) -> tuple[Target, str]:
    error = said.get("error")
    try:
        if isinstance(error, str):
            return _target(said.get("probed")), error
    except ValueError as wrong:
        raise WorkerError(f"hear worker {PROBER}: {wrong}") from wrong
    raise WorkerError(f"hear worker {PROBER}: what it says is no result of a probe")
