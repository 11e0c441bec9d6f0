# SPDX-License-Identifier: Apache-2.0
"""cgnetd as a unit of a machine, and other units that call out. Must not know what a test expects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from beds.machine import Machine

UNIT = "cgnetd.service"
PATIENCE_S = 60.0  # others may keep the host busy
_POLICY_DIR = "/etc/cgnetd/policy.d"
_DROP_IN = "/etc/cgnetd/cgnetd.yaml.d/test.yaml"
_PROGRAM = """\
import errno, socket, sys
with socket.socket() as made:
    print(errno.errorcode.get(made.connect_ex(("127.0.0.1", int(sys.argv[1]))), "connected"))
"""


class Service:
    """Its policies and settings are files of the machine; it is steered by systemctl and cgnetctl alone."""

    DIAL = (
        "/run/dial.py",
        _PROGRAM,
    )  # path and text of a program that connects to a port of loopback and tells the errno

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def reset(self) -> None:
        """Stopped, nothing in force, no policies, no settings."""
        run = self.machine.run
        run("systemctl", "stop", UNIT)
        run("sh", "-c", f"rm -rf {_POLICY_DIR} {_DROP_IN}; mkdir -p {_POLICY_DIR}; systemctl reset-failed")
        run("cgnetctl", "flush")

    def policy(self, name: str, text: str) -> str:
        """Put a policy file where cgnetd looks; returns its path in the machine."""
        path = f"{_POLICY_DIR}/{name}.yaml"
        self.machine.write(path, text)
        return path

    def settings(self, text: str) -> None:
        self.machine.write(_DROP_IN, text)

    def start(self) -> None:
        """Returns when it says that it is ready; AssertionError with its last words if it does not."""
        done = self.machine.try_run("systemctl", "start", UNIT)
        if done.returncode:
            words = self.machine.run("journalctl", f"--unit={UNIT}", "--lines=20", "--output=cat", "--no-pager")
            raise AssertionError(f"{done.stderr}{words}")

    def show(self, *properties: str) -> dict[str, str]:
        """Properties of its unit as systemd has them."""
        told = self.machine.run("systemctl", "show", *(f"--property={name}" for name in properties), UNIT)
        return dict(line.split("=", 1) for line in told.splitlines())

    def status(self) -> dict[str, Any]:
        """What `cgnetctl status` answers: exit code 1 is one of its answers."""
        done = self.machine.try_run("cgnetctl", "status", "--json")
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def dial(self, unit: str, port: int) -> str:
        """Start a transient unit that connects to a port of loopback: "connected", or the errno by name."""
        words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}")
        return self.machine.run(*words, "python3", self.DIAL[0], str(port)).strip()

    def journal(self, *options: str) -> list[dict[str, Any]]:
        return self.machine.journal(*options)

    def own_journal(self, *options: str) -> list[dict[str, Any]]:
        """What the daemon that runs now wrote into it, and none of those before."""
        return self.journal(f"_PID={self.show('MainPID')['MainPID']}", *options)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer of `condition`; AssertionError if none comes in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.1)
    return found
