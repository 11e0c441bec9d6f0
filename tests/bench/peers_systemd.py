# SPDX-License-Identifier: Apache-2.0
"""The same list as IPAddressDeny= of a slice, under a systemd that was booted for it: calls, and loading.

It judges packets, not calls, so everything of a unit pays: what is compared is a unit in a slice with the list and one
in a slice without, in turns, both under the same systemd. Must not know how results are shown.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from beds import shell, trees
from beds.errors import BedError
from beds.machine import Machine
from bench import denylist
from bench.peers import OPERATIONS, calls_that_fit, check
from bench.prefixes import Prefix
from bench.turns import Worker, measuring_cpu, paired
from support import native

SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
PLAIN, LISTED = "none", "systemd"
GIVE_UP_S = 40.0  # nothing larger is tried when loading took longer
_DISTRO = trees.DISTROS["trixie"]
_PROGRAM = "/run/peer"
_SLICE = "/run/systemd/system/listed.slice"
_PARTS = 5


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """Rows as those of `peers` and of `curves`; {"missing": why} where no such system can be booted."""
    try:
        with _booted(scratch) as machine:
            return {"rounds": rounds, "systemd": _DISTRO.systemd, **_measured(machine, rounds)}
    except BedError as error:
        return {"missing": str(error)}


@contextmanager
def _booted(scratch: Path) -> Iterator[Machine]:
    nothing = scratch / "no-packages"
    nothing.mkdir()
    program = native.build("peer", scratch)
    with shell.machine(_DISTRO, bare=nothing) as machine:
        shutil.copy(program, machine.path(_PROGRAM))
        yield machine


def _measured(machine: Machine, rounds: int) -> dict[str, list[dict[str, Any]]]:
    calls: list[dict[str, Any]] = []
    loads: list[dict[str, Any]] = []
    with _unit(machine, "plain", 21_000) as plain:
        for size in SIZES:
            loads.append(_load(machine, size))
            with _unit(machine, "listed", 21_001) as listed:
                check(listed, denylist.listed(size))
                calls += _rows(size, {PLAIN: plain, LISTED: listed}, rounds)
            if loads[-1]["ms"] > GIVE_UP_S * 1e3:
                break
    return {"calls": calls, "loads": loads}


@contextmanager
def _unit(machine: Machine, name: str, port: int) -> Iterator[Worker]:
    """A process that measures, in the slice of that name."""
    options = [f"--unit={name}", f"--slice={name}.slice", f"--property=CPUAffinity={measuring_cpu()}"]
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *options, _PROGRAM, "-", str(port)]
    with Worker(machine.command(*command)) as worker:
        yield worker


def _load(machine: Machine, size: int) -> dict[str, Any]:
    """Milliseconds from the file's change until systemd has done what it says; what systemd has resident then."""
    prefixes: tuple[Prefix, ...] = denylist.listed(size)
    machine.write(_SLICE, "[Slice]\n" + "".join(denylist.unit_lines(prefixes)))
    began = time.monotonic()
    machine.run("systemctl", "daemon-reload", timeout=10 * GIVE_UP_S)
    machine.run("systemctl", "restart", "listed.slice", timeout=10 * GIVE_UP_S)
    taken_ms = (time.monotonic() - began) * 1e3
    pages = int(Path(f"/proc/{machine.pid}/statm").read_text(encoding="ascii").split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return {"loader": LISTED, "size": size, "ms": round(taken_ms, 1), "resident_mib": round(resident, 1)}


def _rows(size: int, workers: dict[str, Worker], rounds: int) -> list[dict[str, Any]]:
    turns = {operation: [_turn(workers, operation) for _ in range(rounds)] for operation in OPERATIONS}
    return [
        {
            "size": size,
            "setting": LISTED,
            "operation": operation,
            "ns": round(median(turn[LISTED] for turn in found), 1),
            "to_none": paired(found, LISTED, PLAIN),
        }
        for operation, found in turns.items()
    ]


def _turn(workers: dict[str, Worker], operation: str) -> dict[str, float]:
    found = {}
    for name, worker in workers.items():
        count = calls_that_fit(worker, operation)
        found[name] = min(worker.turn(operation, count) for _ in range(_PARTS))
    return found
