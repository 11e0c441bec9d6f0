# SPDX-License-Identifier: Apache-2.0
"""The real daemon, as a process on private directories. Must not know what a test does to it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cgnetd.cli import client

START_TIMEOUT_S = 60.0
_MAIN = "import sys; from cgnetd.cli.daemon import main; sys.exit(main())"


class RealDaemon:
    """One daemon: policies in `directory`/policy.d, pins in `pin_dir`, everything below `root`.

    Stopping or killing it leaves enforcement on; `flush` takes it away.
    """

    def __init__(self, directory: Path, root: Path, pin_dir: Path) -> None:
        self.root_path = root
        self.policy_dir = directory / "policy.d"
        self.policy_dir.mkdir()
        self.control_path = directory / "control.sock"
        self.output_path = directory / "output.txt"
        self._notify_path = directory / "notify.sock"
        self._arguments = [
            *("--policy-dir", str(self.policy_dir)),
            *("--pin-dir", str(pin_dir)),
            *("--cgroup-root", str(root)),
            *("--control-socket", str(self.control_path)),
            *("--audit", "stdout"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def write_policy(self, name: str, text: str) -> None:
        """Replace a policy file in one step."""
        fresh = self.policy_dir / f".{name}"
        fresh.write_text(text, encoding="utf-8")
        fresh.rename(self.policy_dir / name)

    def start(self, *, object_dir: Path, extra: tuple[str, ...] = ()) -> None:
        """Returns when it says that it is ready. RuntimeError with its output if it does not."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, self.output_path.open("ab") as output:
            self._notify_path.unlink(missing_ok=True)
            notified.bind(str(self._notify_path))
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, *self._arguments, *extra],
                env={**os.environ, "NOTIFY_SOCKET": str(self._notify_path), "CGNETD_OBJECT_DIR": str(object_dir)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            self._await_ready(notified)

    def _await_ready(self, notified: socket.socket) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            readable, _, _ = select.select([notified], [], [], 0.05)
            if readable and b"READY=1" in notified.recv(4096):
                return
        raise RuntimeError(f"the daemon did not get ready: {self.output_path.read_text(encoding='utf-8')}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        """The answer of the control socket."""
        return client.call(str(self.control_path), verb, args)

    def reload_after(self, change: Callable[[], object]) -> dict[str, Any]:
        """The answer to a reload that reaches the daemon together with the change, which it would see by itself."""
        with socket.socket(socket.AF_UNIX) as asking:
            with self.paused():
                change()
                asking.connect(str(self.control_path))
                asking.sendall(b'{"verb": "reload", "args": {}}\n')
            answer: dict[str, Any] = json.loads(asking.makefile().readline())
        assert answer["ok"], answer
        result: dict[str, Any] = answer["result"]
        return result

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It does nothing meanwhile, and sees all that was done at once."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(START_TIMEOUT_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
