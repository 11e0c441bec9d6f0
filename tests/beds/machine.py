# SPDX-License-Identifier: Apache-2.0
"""A Debian system booted by its own systemd on this kernel, and what can be done in it from outside.

Its changes are in memory: they are gone with it, as are its processes, mounts, network and cgroups. Must not know
cgnetd.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from beds import commands
from beds.errors import BedError

BOOT_TIMEOUT_S = 180.0  # a second, where nobody else keeps the host busy
RUN_TIMEOUT_S = 300.0
_LOGS_TIMEOUT_S = 60.0  # a machine that hangs tells nothing
_TESTS = Path(__file__).parent.parent
_ENVIRONMENT = {"PATH": commands.PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
_UP = ("running", "degraded")


class Machine:
    """Boots `layers` (topmost first). `log_dir` gets the console at once and, by `save_logs`, the journal; without that
    it is gone with the machine. `directory`: of `fresh_directory`, gone with the machine too.
    """

    def __init__(self, layers: Sequence[Path], directory: Path, log_dir: Path) -> None:
        commands.require("unshare", "nsenter", "setpriv")
        self.log_dir = log_dir
        self._began_at = time.time()
        self._keeps_logs = False
        log_dir.mkdir(parents=True, exist_ok=True)
        console = log_dir / "console.txt"
        console.touch()
        lower = ":".join(os.fspath(layer.resolve()) for layer in layers)
        with (log_dir / "warden.txt").open("wb") as words:
            self._warden = subprocess.Popen(
                [sys.executable, "-m", "beds.warden", os.fspath(directory), lower, os.fspath(console)],
                env={**os.environ, "PYTHONPATH": os.fspath(_TESTS)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                start_new_session=True,  # an interrupt at the terminal is for the tests: they end the machine
            )
        try:
            self._meet()
        except BaseException:
            self.close()
            raise

    def _meet(self) -> None:
        assert self._warden.stdout is not None
        line = self._warden.stdout.readline()
        if not line:
            self._keeps_logs = True
            raise BedError(f"boot a machine: {(self.log_dir / 'warden.txt').read_text(encoding='utf-8')}")
        found = json.loads(line)
        self.pid: int = found["pid"]
        self.cgroup = Path(found["cgroup"])
        self._await_boot()

    def _await_boot(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        state = ""
        while self._warden.poll() is None and time.monotonic() < deadline:
            state = self.try_run("systemctl", "is-system-running").stdout.strip()
            if state in _UP:
                return
            time.sleep(0.05)
        self.save_logs()
        words = (self.log_dir / "warden.txt").read_text(encoding="utf-8")
        raise BedError(f"boot a machine: its state is {state or 'unknown'!r}; see {self.log_dir}\n{words}")

    def command(self, *words: str) -> list[str]:
        """What runs `words` as the machine's root, when it is run outside."""
        environment = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
        return ["nsenter", "--target", str(self.pid), "--all", "--", "env", "-i", *environment, *words]

    def try_run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is. subprocess.TimeoutExpired after RUN_TIMEOUT_S."""
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": RUN_TIMEOUT_S} | options
        return subprocess.run(self.command(*words), text=True, check=False, **options)

    def run(self, *words: str, **options: Any) -> str:
        """What a command says on stdout; AssertionError with all it says if it fails."""
        done = self.try_run(*words, **options)
        assert done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def reexecute(self) -> None:
        """Have its systemd execute itself again. Returns when that answers: it does not while it begins anew."""
        self.run("systemctl", "daemon-reexec")
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while self.try_run("systemctl", "show", "--property=Version").returncode:
            assert time.monotonic() < deadline, "systemd does not answer since it executed itself again"
            time.sleep(0.05)

    def path(self, inside: str) -> Path:
        """A file of the machine, seen from outside. Absolute links in it lead astray."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Replace a file in one step; its directory is made if it is missing."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(mode)
        fresh.rename(path)

    def journal(self, *options: str) -> list[dict[str, Any]]:
        """Records of the machine's journal, oldest first, everything written before this call."""
        self.run("journalctl", "--sync")
        return [json.loads(line) for line in self.run("journalctl", "-o", "json", *options).splitlines()]

    def save_logs(self) -> None:
        """The journal and the state of units, into `log_dir`, to stay; as much as a broken machine still tells."""
        self._keeps_logs = True
        ask = partial(self.try_run, timeout=_LOGS_TIMEOUT_S)
        wanted: dict[str, Callable[[], subprocess.CompletedProcess[str]]] = {
            "journal.txt": lambda: ask("journalctl", "--no-pager", "-o", "short-precise"),
            "units.txt": lambda: ask("systemctl", "--no-pager", "status", "--all"),
            "cgnetctl-status.txt": lambda: ask("cgnetctl", "status"),
            "kernel.txt": self._kernel_log,
        }
        for name, tell in wanted.items():
            try:
                done = tell()
                (self.log_dir / name).write_text(done.stdout[-4_000_000:] + done.stderr, encoding="utf-8")
            except (OSError, subprocess.TimeoutExpired) as error:
                (self.log_dir / name).write_text(f"{error}\n", encoding="utf-8")

    def _kernel_log(self) -> subprocess.CompletedProcess[str]:
        """Of the host, since this machine began."""
        # Not "@SECONDS", which dmesg of Debian 12 does not read.
        command = ["dmesg", "--since", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._began_at))]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)

    def close(self) -> None:
        """End it at once; returns when nothing of it is left."""
        assert self._warden.stdin is not None
        assert self._warden.stdout is not None
        self._warden.stdin.close()
        self._warden.wait()
        self._warden.stdout.close()
        if not self._keeps_logs:
            shutil.rmtree(self.log_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
