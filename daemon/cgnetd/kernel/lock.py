# SPDX-License-Identifier: Apache-2.0
"""One daemon a pin directory: a lock on the directory itself, gone with its holder. Must not know what is pinned."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.errors import PinError
from cgnetd.kernel import bpffs

_COMMAND_LENGTH = 300


class PinLock:
    """Holds flock(2) on the pin directory until closed; makes the directory if it is not there."""

    def __init__(self, pin_dir: Path) -> None:
        """PinError if another process holds it (its pid and command line are told) or it is not on a bpffs."""
        bpffs.make_pin_dir(pin_dir)
        self._fd = os.open(pin_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = holder(pin_dir)
            self.close()
            raise PinError(f"lock pin directory {pin_dir}: it is held by {who or 'another process'}") from None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def holder(pin_dir: Path) -> str:
    """Who holds the lock: `pid 123 (cgnetd --once)`; "" if nobody that we can see (another pid namespace) does."""
    try:
        found = pin_dir.stat()
    except FileNotFoundError:
        return ""
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        fields = line.split()  # 1: FLOCK ADVISORY WRITE 123 00:1f:42 0 EOF; one that waits has "->" behind the number
        if fields[1] == "FLOCK" and fields[5] == place and int(fields[4]) > 0:
            return f"pid {fields[4]}{_command(int(fields[4]))}"
    return ""


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = " ".join(b" ".join(words).decode("utf-8", "replace").split())[:_COMMAND_LENGTH]
    return f" ({text})" if text else ""
