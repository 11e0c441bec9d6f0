# SPDX-License-Identifier: Apache-2.0
"""What journalctl shows of cgnetd's records, and programs that give it something to tell.

Must not know what a test expects.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from beds.machine import Machine
from cgnetd.service.events import Kind
from support import native
from system.service import UNIT, Service

PATIENCE_S = 60.0
SUPPRESSED = "a596d6fe7bfa4994828e72309e95d61e"  # journald's own word for entries that it threw away
_STORM = "/run/storm"


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer; AssertionError if none comes in time. Generous: others may keep the host busy."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.2)
    return found


def of_kind(service: Service, kind: Kind, *words: str) -> list[dict[str, Any]]:
    """Entries of one kind that the running daemon wrote, found by MESSAGE_ID."""
    return service.journal(f"MESSAGE_ID={kind.message_id}", f"_PID={pid_of(service)}", *words)


def pid_of(service: Service) -> str:
    """Of the daemon that runs or ran last, as journald saw it."""
    shown = service.show("MainPID", "ExecMainPID")
    return shown["MainPID"] if shown["MainPID"] != "0" else shown["ExecMainPID"]


def explained(service: Service, *words: str) -> str:
    """What a person reads: `journalctl -x` of these words."""
    service.machine.run("journalctl", "--sync")
    return service.machine.run("journalctl", "--catalog", "--output=short", "--no-pager", *words)


def fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Our own fields of an entry, without their prefix."""
    return {name.removeprefix("CGNETD_"): value for name, value in entry.items() if name.startswith("CGNETD_")}


def put_storm(machine: Machine) -> None:
    """Build the program that makes calls in a tight loop, and put it into a machine. It needs nothing there."""
    with tempfile.TemporaryDirectory() as directory:
        program = native.build("storm", Path(directory), "-static")
        target = machine.path(_STORM)
        target.write_bytes(program.read_bytes())
        target.chmod(0o755)


def start_unit(unit: str, *command: str, properties: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The words that run a command as a transient unit, to its end, with its output."""
    given = [f"--property={one}" for one in properties]
    return ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}", *given, *command)


def storm(service: Service, unit: str, call: str, calls: int, destinations: int) -> dict[str, int]:
    """Run a storm as a unit, to its end: how often each errno came, and the number of calls."""
    words = start_unit(unit, _STORM, call, str(calls), str(destinations))
    found: dict[str, int] = json.loads(service.machine.run(*words, timeout=300))
    return found


def begin_storm(service: Service, unit: str, call: str, calls: int, destinations: int) -> subprocess.Popen[str]:
    """The same, not waited for."""
    words = start_unit(unit, _STORM, call, str(calls), str(destinations))
    return subprocess.Popen(
        service.machine.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )


def told(service: Service, unit: str) -> list[dict[str, Any]]:
    """Entries about calls of a unit, by journalctl -u."""
    return [one for one in service.journal(f"--unit={unit}") if one.get("CGNETD_TYPE") == "flow"]


def calls_of(entries: list[dict[str, Any]]) -> int:
    return sum(int(one["CGNETD_COUNT"]) for one in entries)


def suppressed(service: Service) -> list[dict[str, Any]]:
    """What journald says of entries of cgnetd that it threw away."""
    return [one for one in service.journal(f"MESSAGE_ID={SUPPRESSED}") if UNIT in str(one)]


def cpu_s(service: Service) -> float:
    """Seconds of processor time that the unit has used."""
    return int(service.show("CPUUsageNSec")["CPUUsageNSec"]) / 1e9
