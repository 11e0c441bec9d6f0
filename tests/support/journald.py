# SPDX-License-Identifier: Apache-2.0
"""A real journald of one test, in a mount namespace with a /run of its own, so that the machine's sees nothing.

Must not know what is written to it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import sandbox

PROGRAM = Path("/usr/lib/systemd/systemd-journald")
_SOCKET = "run/systemd/journal/socket"
_READY = "run/namespace-is-ready"
_DEADLINE_S = 60.0
_CLONE_NEWNS = 0x00020000

# What systemd's own unit would let it do to the machine is switched off: kernel auditing stays as it is, the kernel's
# log is neither read nor written.
_SETTINGS = "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\nRateLimitIntervalSec=0\nReadKMsg=no\nAudit=\n"

_SETUP = f"""\
set -e
fresh=$1
shift
mount -t tmpfs -o mode=0755 cgnetd-test "$fresh"
for kept; do
    mkdir -p "$fresh/${{kept#/run/}}"
    mount --bind "$kept" "$fresh/${{kept#/run/}}"
done
mount --rbind "$fresh" /run
mkdir -p /run/systemd/journald.conf.d
printf '%s' "$JOURNALD_SETTINGS" > /run/systemd/journald.conf.d/test.conf
echo 5eed5eed5eed4eed8eed5eed5eed5eed > /run/machine-id
mount --bind /run/machine-id /etc/machine-id
[ ! -e /dev/kmsg ] || mount --bind /dev/null /dev/kmsg
: > /{_READY}
exec sleep infinity
"""


class Journald:
    """Not started yet. `directory`: empty, of the test; `kept`: directories below /run to be seen in the namespace."""

    def __init__(self, directory: Path, kept: Sequence[Path]) -> None:
        directory.mkdir()
        self._stack = ExitStack()
        self._home = self._stack.enter_context(sandbox.cgroup())
        self._journald: subprocess.Popen[bytes] | None = None
        script = ["unshare", "--mount", "/bin/sh", "-c", _SETUP, "sh", os.fspath(directory), *map(os.fspath, kept)]
        self._holder = self._home.popen(script, env={**os.environ, "JOURNALD_SETTINGS": _SETTINGS})
        self._await(_READY)

    @property
    def pid(self) -> int:
        assert self._journald is not None
        return self._journald.pid

    def start(self) -> None:
        """Returns when it takes entries."""
        (self._root / _SOCKET).unlink(missing_ok=True)
        self._journald = self._home.popen([*self._inside, os.fspath(PROGRAM)], stderr=subprocess.DEVNULL)
        self._await(_SOCKET)

    def kill(self) -> None:
        assert self._journald is not None
        self._journald.kill()
        self._journald.wait()

    def entries(self, *words: str) -> list[dict[str, Any]]:
        """What journalctl finds with `words`, oldest first."""
        command = [*self._inside, "journalctl", "--quiet", "--no-pager", "--output=json", *words]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [json.loads(line) for line in lines]

    @contextmanager
    def namespace(self) -> Iterator[None]:
        """The calling thread, and what it starts meanwhile, sees the namespace's files."""
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        ours = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
        theirs = os.open(f"/proc/{self._holder.pid}/ns/mnt", os.O_RDONLY)
        try:
            _enter(theirs)
            try:
                yield
            finally:
                _enter(ours)
                os.fchdir(here)  # entering went to the root directory
        finally:
            for fd in (here, ours, theirs):
                os.close(fd)

    def close(self) -> None:
        """Ends every process in the namespace, and by that the namespace."""
        self._stack.close()
        for process in (self._journald, self._holder):
            if process is not None:
                process.wait()

    @property
    def _root(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/root")

    @property
    def _inside(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt"]

    def _await(self, path: str) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not (self._root / path).exists():
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"never came: /{path}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _enter(namespace_fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace_fd, _CLONE_NEWNS):
        number = ctypes.get_errno()
        raise OSError(number, f"enter a mount namespace: {os.strerror(number)}")
