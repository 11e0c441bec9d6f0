# SPDX-License-Identifier: Apache-2.0
"""A process that is denied as fast as it can ask: calls a second, what the daemon takes for it, what becomes of events.

Every denied call is in an event's count or among those told as lost; this is checked, not assumed. Must not know how
results are shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench import build, rulesets
from bench.daemon import cpu_s, rss_mib, running
from bench.turns import measuring_cpu, other_cpu
from support import native
from support.daemon import RealDaemon

CALLS = 1_000_000
DESTINATIONS = (1, 100, 10_000, 1_000_000)
OPERATIONS = ("sendto", "connect")
_QUIET = "quiet"  # the policy without events, for comparison
_WINDOW_S = 1
_DEADLINE_S = 20.0
_LOST = ("lost", "sink_dropped", "undecodable")


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """Rows by operation and number of destinations: calls a second with events and without, the daemon's CPU time in
    a second of storm, records, and calls that were lost or not accounted for at all."""
    program = native.build("storm", scratch)
    with _daemon(scratch, "loud") as loud, _daemon(scratch, _QUIET) as quiet:
        rows = [
            _row((loud, quiet), [str(program), operation, str(CALLS), str(destinations)], rounds)
            for operation in OPERATIONS
            for destinations in DESTINATIONS
        ]
    return {"rounds": rounds, "calls": CALLS, "window_s": _WINDOW_S, "rows": rows}


@contextmanager
def _daemon(scratch: Path, name: str) -> Iterator[RealDaemon]:
    """One that denies everything to the cgroup `many`; its own CPU is the one where the storm is not."""
    log = "false" if name == _QUIET else "true"
    policy = f"{rulesets.HEAD.format(name='many')}  egress: [{{action: deny, log: {log}, to: [127.0.0.0/8]}}]\n"
    extra = ("--set", f"audit.window={_WINDOW_S}s")
    with running(scratch, build.objects(scratch), f"storm-{name}", policy, extra=extra) as daemon:
        os.sched_setaffinity(daemon.pid, {other_cpu()})
        yield daemon


def _row(daemons: tuple[RealDaemon, RealDaemon], command: list[str], rounds: int) -> dict[str, Any]:
    loud, quiet = daemons
    turns = [(_storm(quiet, command), _judged(loud, command)) for _ in range(rounds)]
    told = [told for _, told in turns]
    return {
        "operation": command[1],
        "destinations": int(command[3]),
        "calls_a_second": round(median(CALLS / each["seconds"] for each in told)),
        "calls_a_second_without_events": round(median(CALLS / seconds for seconds, _ in turns)),
        "daemon_cpu_s_a_second": round(median(each["cpu_s"] / each["seconds"] for each in told), 3),
        "records": round(median(each["records"] for each in told)),
        "lost": max(each["lost"] for each in told),
        "unaccounted": max(each["unaccounted"] for each in told),
        "daemon_mib": rss_mib(loud),
    }


def _storm(daemon: RealDaemon, command: list[str]) -> float:
    """Seconds that all calls take, every one of which is denied."""
    inside = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(daemon.root_path / "many" / "cgroup.procs")]
    began = time.monotonic()
    process = subprocess.Popen([*inside, *command], stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {measuring_cpu()})
    said, _ = process.communicate()
    seconds = time.monotonic() - began
    assert json.loads(said) == {"calls": CALLS, "1": CALLS}, said
    return seconds


def _judged(daemon: RealDaemon, command: list[str]) -> dict[str, float]:
    """One storm, until all of it is told. The daemon's CPU time is that up to the last record, without what it takes to
    answer how much was lost."""
    lost, at = _lost(daemon), daemon.output_path.stat().st_size
    used_s = -cpu_s(daemon)
    seconds = _storm(daemon, command)
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        told = _told(daemon, at)
        used_s += cpu_s(daemon)
        missed = _lost(daemon) - lost
        if sum(told) + missed >= CALLS or time.monotonic() > deadline:
            break
        used_s -= cpu_s(daemon)
        time.sleep(0.2)
    return {
        "seconds": seconds,
        "cpu_s": used_s,
        "records": len(told),
        "lost": missed,
        "unaccounted": CALLS - sum(told) - missed,
    }


def _told(daemon: RealDaemon, at: int) -> list[int]:
    """The counts of all events that were written since the output was of that size."""
    with daemon.output_path.open("rb") as output:
        output.seek(at)
        lines = output.read().splitlines()
    records = (json.loads(line) for line in lines if line.startswith(b'{"type": "flow"') and line.endswith(b"}"))
    return [record["count"] for record in records]


def _lost(daemon: RealDaemon) -> int:
    stats = daemon.ask("status")["stats"]
    return sum(stats[name] for name in _LOST)
