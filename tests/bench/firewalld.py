# SPDX-License-Identifier: Apache-2.0
"""firewalld in a private network namespace, on a bus of its own, with a configuration of its own. Must not measure."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from support.netns import PrivateNetns

PROGRAMS = ("firewalld", "firewall-cmd", "dbus-daemon")
_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
_ZONE = """\
<?xml version="1.0" encoding="utf-8"?>
<zone target="DROP">
  <source ipset="listed"/>
</zone>
"""
_SETTINGS = "DefaultZone=public\nFirewallBackend=nftables\nCleanupModulesOnExit=no\n"  # modules are the whole host's
_DEADLINE_S = 30.0


def lacking() -> str | None:
    """The first program that is missing."""
    return next((program for program in PROGRAMS if not shutil.which(program)), None)


class Firewalld:
    """The daemon and its bus. Needs closing."""

    def __init__(self, network: PrivateNetns, directory: Path) -> None:
        self._sets = directory / "ipsets"
        zones = directory / "zones"
        for path in (self._sets, zones):
            path.mkdir(parents=True)
        (zones / "drop.xml").write_text(_ZONE, encoding="ascii")
        (directory / "firewalld.conf").write_text(_SETTINGS, encoding="ascii")
        self._enter = ["nsenter", f"--net={network.path}"]
        bus = directory / "bus"
        (directory / "bus.conf").write_text(_BUS.format(path=bus), encoding="ascii")
        self._environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
        self._output = directory / "output.txt"
        self._started: list[subprocess.Popen[bytes]] = []
        self._directory = directory

    def start(self, listed: str) -> None:
        """With a set. RuntimeError if it does not answer in time."""
        self.put(listed)
        self._start("dbus-daemon", f"--config-file={self._directory / 'bus.conf'}", "--nofork", "--nopidfile")
        quiet = ("--nofork", "--nopid", "--log-target", "console")
        self._start("firewalld", *quiet, "--system-config", os.fspath(self._directory))
        deadline = time.monotonic() + _DEADLINE_S
        while self._ask("--state").returncode:
            if time.monotonic() > deadline or self._started[-1].poll() is not None:
                raise RuntimeError(f"firewalld: {self._output.read_text(encoding='utf-8')[-500:]}")
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        return self._started[-1].pid

    def put(self, listed: str) -> None:
        """Replace the set's file; nothing happens before a reload."""
        (self._sets / "listed.xml").write_text(listed, encoding="ascii")

    def reload(self, timeout_s: float) -> None:
        """RuntimeError if it fails, subprocess.TimeoutExpired if it takes longer."""
        done = self._ask("--reload", timeout_s=timeout_s)
        if done.returncode:
            raise RuntimeError(f"firewall-cmd --reload: {done.stderr.strip().partition('. ')[0]}")

    def _start(self, *command: str) -> None:
        with self._output.open("ab") as output:
            words = [*self._enter, *command]
            self._started.append(
                subprocess.Popen(words, env=self._environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            )

    def _ask(self, word: str, timeout_s: float = _DEADLINE_S) -> subprocess.CompletedProcess[str]:
        command = [*self._enter, "firewall-cmd", word]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._started):
            process.kill()
            process.wait()
