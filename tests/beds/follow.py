# SPDX-License-Identifier: Apache-2.0
"""Listening to a process that writes lines to a file, to its end. Must not know what they mean."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from beds.errors import BedError

_POLL_S = 0.5
_PATIENCE_S = 10.0


def follow(
    process: subprocess.Popen[bytes],
    lines: Path,
    console: Path,
    *,
    deadline: float,
    heard: Callable[[str], None],
    doom: bytes = b"",
) -> None:
    """Hand over each whole line of `lines` as it comes, until the process has ended; it is gone in any case.

    BedError at `deadline` (by time.monotonic()), or once `console`, a file that need not exist, has `doom`.
    """
    try:
        with lines.open("rb") as follower:
            _listen(process, follower.readline, console, deadline=deadline, heard=heard, doom=doom)
    finally:
        _end(process)


def _listen(
    process: subprocess.Popen[bytes],
    read: Callable[[], bytes],
    console: Path,
    *,
    deadline: float,
    heard: Callable[[str], None],
    doom: bytes,
) -> None:
    rest = b""
    ended = False
    while True:
        while chunk := read():
            rest += chunk
            if rest.endswith(b"\n"):
                heard(rest.decode(errors="replace").strip())
                rest = b""
        if doom and console.exists() and doom in console.read_bytes():
            raise BedError(f"{doom.decode()}; see {console}")
        if ended:
            return
        if time.monotonic() > deadline:
            raise BedError(f"not done in time; see {console}")
        ended = process.poll() is not None  # what it wrote last is still to be read
        time.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It may clean up, but not for long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # what pytest cleans up after
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
