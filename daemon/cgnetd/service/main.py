# SPDX-License-Identifier: Apache-2.0
"""The daemon from start to stop: what is opened in which order, and what a failure at the start means.

Must not know the command line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

from cgnetd import __version__
from cgnetd.errors import PolicyError
from cgnetd.service.control import ControlServer
from cgnetd.service.daemon import Daemon
from cgnetd.service.dry import plan_lines
from cgnetd.service.events import Kind
from cgnetd.service.listener import Listener
from cgnetd.service.loop import Loop
from cgnetd.service.memory import keep_large_blocks_apart
from cgnetd.service.notify import Notifier
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.report import message
from cgnetd.service.session import Surroundings
from cgnetd.service.settings import Settings
from cgnetd.service.sinks import EventLog, open_sink
from cgnetd.service.verbs import Verbs


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def run(
    settings: Settings,
    *,
    read_settings: Callable[[], Settings],
    once: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = _say,
) -> int:
    """Run the daemon until SIGTERM or SIGINT, which leave enforcement on; returns the exit code.

    `read_settings`: asked on a reload; raises SettingsError. `once`: one pass, then return. `dry_run`: `say` each step
    that a pass would make, and change nothing. Raises CgnetdError for surroundings that allow nothing, and with `once`
    or `dry_run` PolicyError for bad policies; whatever was in force stays.
    """
    if dry_run:
        for line in plan_lines(settings):
            say(line)
        return 0
    keep_large_blocks_apart()
    with ExitStack() as stack:
        # Asked for before anything in the kernel is touched: a second daemon must refuse without a trace.
        listener = None if once else stack.enter_context(Listener(settings.control_socket, settings.control_group))
        log = EventLog(open_sink(settings.audit.sink))
        stack.callback(log.close)
        daemon = Daemon(Reconciler(settings, Surroundings.find(settings)), log, Notifier(), read_settings)
        stack.callback(daemon.close)
        daemon.begin(once=once)
        if listener is None:
            daemon.finish()
            last = daemon.reconciler.last
            if last.error is not None:
                raise last.error
            if last.problems:
                raise PolicyError(last.problems)
            return 0
        asyncio.run(_serve(daemon, listener, log))
        if (lost := daemon.lost) is not None:
            daemon.hand_over()
            raise lost
    return 0


async def _serve(daemon: Daemon, listener: Listener, log: EventLog) -> None:
    loop = Loop(daemon, daemon.notifier)
    counts = {"sink_dropped": lambda: log.dropped, "undecodable": lambda: daemon.undecodable}
    verbs = Verbs(daemon.reconciler, log, loop, counts)
    server = ControlServer(verbs.handle)
    counts["followers_dropped"] = lambda: server.dropped_followers
    root_only = f"; its control socket is for root alone: {listener.root_only}" if listener.root_only else ""
    log.publish([message(Kind.STARTED, f"cgnetd {__version__} runs{root_only}", version=__version__, pid=os.getpid())])
    await loop.run(listener, server)
    log.publish([message(Kind.STOPPED, "cgnetd stops, what is in force stays in force")])
