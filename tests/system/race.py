# SPDX-License-Identifier: Apache-2.0
"""A thousand units that a machine's systemd starts, whose first system calls are calls that policies can deny.

Must not know what becomes of the daemon meanwhile, nor what a test expects.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from beds.machine import Machine
from support import native

KINDS = ("tcp4", "tcp6", "udp4", "udp6", "bind4", "bind6")
EGRESS, BIND = KINDS[:4], KINDS[4:]
POLICIES = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: race-units}
spec:
  subject: {units: ["race-direct@*", "race-fork@*.service", "race-before@*.service", "race-transient-*.service"]}
  egress: [{name: calls, action: deny, errno: EHOSTUNREACH}]
  bind: [{name: binds, action: deny, errno: EACCES}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: race-slices}
spec:
  subject: {slices: ["guarded-*.slice"]}
  egress: [{name: calls, action: deny, errno: ENETUNREACH}]
  bind: [{name: binds, action: deny, errno: EACCES}]
"""
_FLAGS = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
_PROGRAM = "/usr/local/bin/race"
_RESULTS = "/run/race.txt"
_OUTPUT = f"StandardOutput=append:{_RESULTS}"
_BATCH = 50  # systemd forks this many without looking at anything else: what the daemon wants of it comes in between
_AT_ONCE = "4"  # clients that ask for transient units


@dataclass(frozen=True)
class Form:
    """A way in which units come to call out. `policy`: the one that governs them, if any does; `lines`: of their unit
    file beyond what all have; `sets`: how often a unit makes a set of calls, one of each kind.
    """

    name: str
    policy: str | None
    count: int
    lines: tuple[str, ...] = ()
    sets: int = 1


TEMPLATES = (
    Form("direct", "race-units", 550),
    Form("fork", "race-units", 150),
    Form("before", "race-units", 100, (f"ExecStartPre={_PROGRAM} before %i",), sets=2),
    Form("slice", "race-slices", 100, ("Slice=guarded-%i.slice",)),
    Form("free", None, 50),
)
TRANSIENT = Form("transient", "race-units", 100)
FORMS = (*TEMPLATES, TRANSIENT)


def install(machine: Machine, scratch: Path) -> None:
    """Build the program and put it and the unit files into a machine."""
    program = native.build("race", scratch, *_FLAGS)
    shutil.copy(program, machine.path(_PROGRAM))
    for form in TEMPLATES:
        start = f"ExecStart={_PROGRAM} {form.name} %i"
        lines = ("[Unit]", "DefaultDependencies=no", "[Service]", "Type=oneshot", _OUTPUT, *form.lines, start, "")
        machine.write(f"/run/systemd/system/race-{form.name}@.service", "\n".join(lines))
    machine.run("systemctl", "daemon-reload")


def run(machine: Machine) -> dict[str, Counter[tuple[int, ...]]]:
    """Start every unit and wait until it has ended. By name of the form: how often which errnos came back, in the order
    of KINDS. AssertionError if a unit fails.
    """
    machine.path(_RESULTS).unlink(missing_ok=True)
    for batch in _batches(_mixed()):
        machine.run("systemctl", "start", *batch)
    ask = f"systemd-run --quiet --service-type=oneshot --property={_OUTPUT} --unit=race-transient-$1"
    each = f"xargs -n 1 -P {_AT_ONCE} sh -c 'exec {ask} {_PROGRAM} transient $1' sh"
    machine.run("sh", "-c", f"seq 0 {TRANSIENT.count - 1} | {each}")
    machine.run("systemctl", "stop", "guarded.slice")  # and those below: their cgroups are new again the next time
    return _results(machine)


def _mixed() -> Iterator[str]:
    """Names of units of all templates, those of one form spread evenly over the whole."""
    places = ((number / form.count, form.name, number) for form in TEMPLATES for number in range(form.count))
    return (f"race-{name}@{number}.service" for _, name, number in sorted(places))


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _results(machine: Machine) -> dict[str, Counter[tuple[int, ...]]]:
    found: dict[str, Counter[tuple[int, ...]]] = {form.name: Counter() for form in FORMS}
    for line in machine.path(_RESULTS).read_text(encoding="utf-8").splitlines():
        name, _, *errnos = line.split()
        found[name][tuple(map(int, errnos))] += 1
    return found
