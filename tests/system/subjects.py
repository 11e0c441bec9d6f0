# SPDX-License-Identifier: Apache-2.0
"""Units that call both an open and a shut port of loopback, in every way that systemd starts things, and what they got.

Must not know which policy governs which unit, nor what a test expects.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beds.machine import Machine
from support import native
from system.service import Service, eventually

OPEN, SHUT = 1111, 2222  # nobody listens on either
DENIED = "EHOSTUNREACH"
GOVERNED, FREE = "governed", "free"  # what `got` says
_LET_THROUGH = "ECONNREFUSED ECONNREFUSED 0 0"  # TCP by IPv4 and IPv6, UDP by IPv4 and IPv6
_MEANINGS = {
    f"{_LET_THROUGH} / {_LET_THROUGH}": FREE,
    f"{_LET_THROUGH} / {' '.join([DENIED] * 4)}": GOVERNED,
}
DIAL = f"/usr/local/bin/dial {OPEN} {SHUT}"
_UNITS = "/run/systemd/system"
_RESULTS = "/var/lib/subjects"
# What a denial in the journal is about: each of the four calls of one set.
CALLS = {(hook, address, str(SHUT)) for hook in ("connect", "sendmsg") for address in ("127.0.0.1", "::1")}


def policy(name: str, subject: str, *, extra: str = "") -> str:
    """A document that allows calls to OPEN and denies the rest. `subject` in flow style; `extra`: a line of spec."""
    return f"""\
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  subject: {subject}
  {extra}
  egress:
    - {{name: open, action: allow, ports: [{OPEN}]}}
    - {{name: rest, action: deny, errno: {DENIED}}}
"""


def got(line: str) -> str:
    """What a line of the program means: GOVERNED, FREE, or, where it is neither, the line itself."""
    return _MEANINGS.get(line.strip(), line)


@contextmanager
def governing(machine: Machine, policies: str) -> Iterator[Service]:
    """cgnetd, started with these policies in force; nothing of it afterwards."""
    service = Service(machine)
    service.reset()
    service.policy("subjects", policies)
    service.start()
    try:
        yield service
    finally:
        service.reset()


def install(root: Path, scratch: Path) -> None:
    """Put the program, and a directory for what it tells, into a machine's root; `scratch`: to build it in."""
    fresh = root / "usr/local/bin/dial.new"  # put in place by rename: what runs cannot be written
    fresh.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(native.build("dial", scratch, "-static"), fresh)
    fresh.rename(fresh.with_suffix(""))
    results = root / _RESULTS.lstrip("/")
    results.mkdir(parents=True, exist_ok=True)
    results.chmod(0o1777)


class Callers:
    """Units of a machine that dial. Each writes what it got into a file of its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._units: set[str] = set()

    @classmethod
    @contextmanager
    def on(cls, machine: Machine, scratch: Path) -> Iterator[Callers]:
        """With the program installed; units that were made are gone afterwards."""
        install(machine.path("/"), scratch)
        callers = cls(machine)
        try:
            yield callers
        finally:
            callers.clear()

    @staticmethod
    def output(name: str) -> str:
        """The line of a unit file that has what it prints told by `lines(name)`."""
        return f"StandardOutput=append:{_RESULTS}/{name}"

    def lines(self, name: str) -> list[str]:
        """What a unit got each time it dialled, oldest first."""
        path = self.machine.path(f"{_RESULTS}/{name}")
        return [got(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def write(self, name: str, text: str, *, drop_in: bool = False) -> None:
        """Put a unit file, or a drop-in of one, where systemd looks, and have it look."""
        self.machine.write(f"{_UNITS}/{name}.d/50-test.conf" if drop_in else f"{_UNITS}/{name}", text)
        self._units.add(name)
        self.machine.run("systemctl", "daemon-reload")

    def remove(self, name: str) -> None:
        """Take the file, and the drop-ins, of a unit away."""
        self.machine.run("rm", "-rf", f"{_UNITS}/{name}", f"{_UNITS}/{name}.d")
        self.machine.run("systemctl", "daemon-reload")

    def once(self, name: str, *lines: str, start: str = DIAL) -> None:
        """Make a service that dials and ends, or a template of such. `lines`: more of its [Service]."""
        kept = (self.output("%n"), *lines, f"ExecStart={start}")
        self.write(name, "\n".join(("[Service]", "Type=oneshot", *kept, "")))

    def resident(self, name: str, *lines: str) -> None:
        """Make a service that dials, stays, and dials `again` when it is told."""
        kept = (self.output("%n"), *lines, f"ExecStart={DIAL} wait")
        self.write(name, "\n".join(("[Service]", "Type=exec", *kept, "")))

    def start(self, name: str, verb: str = "start") -> str:
        """What a unit gets that is started now, or whatever else `verb` is."""
        before = len(self.lines(name))
        self.machine.run("systemctl", verb, name)
        return self.next(name, before)

    def again(self, name: str) -> str:
        """What a resident unit gets that is told to dial now."""
        before = len(self.lines(name))
        self.machine.run("systemctl", "kill", "--kill-who=main", "--signal=USR1", name)
        return self.next(name, before)

    def next(self, name: str, before: int) -> str:
        """What it got after the first `before` times, as soon as that is there."""
        found: list[str] = eventually(lambda: self.lines(name)[before:], f"what {name} got")
        assert len(found) == 1, found
        return found[0]

    def transient(self, name: str, *options: str, command: str = DIAL) -> str:
        """What a transient service gets; `options` of systemd-run."""
        before = len(self.lines(name))
        words = ("systemd-run", "--quiet", "--wait", "--collect", f"--unit={name}", f"--property={self.output(name)}")
        self.machine.run(*words, *options, "sh", "-c", command)
        return self.next(name, before)

    def clear(self) -> None:
        """End and remove every unit that was made, and what they told."""
        # Sockets first: they would start what has just been stopped.
        words = [name.replace("@.", "@*.") for name in sorted(self._units, key=lambda name: ".socket" not in name)]
        for verb in ("stop", "reset-failed"):
            for word in words:
                self.machine.try_run("systemctl", verb, word)
        for name in self._units:
            self.machine.run("rm", "-rf", f"{_UNITS}/{name}", f"{_UNITS}/{name}.d")
        self.machine.run("sh", "-c", f"rm -rf {_RESULTS}; systemctl daemon-reload")


def journal_tells(machine: Machine, *selection: str) -> list[dict[str, Any]]:
    """The denials that the journal has by this selection, once it has those of a whole set of calls."""

    def found() -> list[dict[str, Any]]:
        told = [one for one in machine.journal(*selection) if one.get("CGNETD_VERDICT") == "deny"]
        calls = {(one["CGNETD_HOOK"], one["CGNETD_REMOTE_ADDRESS"], one["CGNETD_REMOTE_PORT"]) for one in told}
        assert calls <= CALLS, calls
        return told if calls == CALLS else []

    records: list[dict[str, Any]] = eventually(found, f"denials by {selection}")
    return records
