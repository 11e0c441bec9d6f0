# SPDX-License-Identifier: Apache-2.0
"""TCP connect probes: who answers, again and again, without ever blocking the loop.

Probes leave from the daemon's own network namespace. Must not know what a failure means.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import socket
from collections.abc import Callable, Iterable

from cgnetd.service.health import Target

_JITTER = 0.1  # of the interval, so that many daemons do not knock at once
_ROOM_SHARE = 2  # probes may have one of so many descriptors: the daemon needs some for everything else
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Prober:
    """Probes what it is told to. Lives in one loop; needs closing."""

    def __init__(self, report: Callable[[Target, str], None]) -> None:
        """`report`: called with each result, the error "" if somebody answered."""
        self._report = report
        self._tasks: dict[Target, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_descriptors() // _ROOM_SHARE)

    def follow(self, targets: Iterable[Target]) -> None:
        """Probe these and no others; those that are being probed already keep their pace. In the running loop."""
        wanted = set(targets)
        for target in self._tasks.keys() - wanted:
            self._tasks.pop(target).cancel()
        for target in sorted(wanted - self._tasks.keys()):
            self._tasks[target] = asyncio.get_running_loop().create_task(self._watch(target))

    async def close(self) -> None:
        """End all probes."""
        tasks = list(self._tasks.values())
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, target: Target) -> None:
        interval_s = target.interval_ns / 1e9
        await asyncio.sleep(random.uniform(0, min(interval_s, 1.0)))
        while True:
            async with self._room:
                error = await probe(target.address, target.port, target.timeout_ns)
            if error is not None:
                self._report(target, error)
            await asyncio.sleep(interval_s * random.uniform(1 - _JITTER, 1 + _JITTER))


def _descriptors() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


async def probe(address: str, port: int, timeout_ns: int) -> str | None:
    """ "" if somebody accepts a TCP connection there, else why not; None if this host has no room to ask."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        return None if error.errno in _NO_ROOM else _words(error)
    with made:
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(made, (address, port)), timeout_ns / 1e9)
        except TimeoutError:
            return f"no answer within {timeout_ns // 10**6} ms"
        except OSError as error:
            return None if error.errno in _NO_ROOM else _words(error)
        # A connect to a free port of this host can meet itself, if that is the port the kernel picked for it.
        return "" if made.getsockname() != made.getpeername() else os.strerror(errno.ECONNREFUSED)


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
