# SPDX-License-Identifier: Apache-2.0
"""Lines are handed over whole and to the last one; a process that hangs or whose console tells of its end is ended."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from beds.errors import BedError
from beds.follow import follow

HOURS_S = 7200.0


def heard_of(
    script: str, directory: Path, *, within_s: float = HOURS_S, doom: bytes = b""
) -> tuple[list[str], subprocess.Popen[bytes]]:
    """What a shell script writes to $1; $2 is its console."""
    lines, console, heard = directory / "lines", directory / "console", list[str]()
    lines.touch()
    process = subprocess.Popen(["/bin/sh", "-c", script, "sh", lines, console])
    try:
        follow(process, lines, console, deadline=time.monotonic() + within_s, heard=heard.append, doom=doom)
    finally:
        assert process.returncode is not None
    return heard, process


def test_last_line_is_heard_and_none_is_cut(tmp_path: Path) -> None:
    heard, process = heard_of('printf "one\\ntw" > "$1"; sleep 0.7; printf "o\\nthree\\n" >> "$1"; exit 3', tmp_path)
    assert heard == ["one", "two", "three"]
    assert process.returncode == 3


def test_process_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(BedError, match="not done in time"):
        heard_of("exec sleep 7200", tmp_path, within_s=0.1)


def test_process_that_is_doomed_is_ended(tmp_path: Path) -> None:
    with pytest.raises(BedError, match="Kernel panic"):
        heard_of('echo "[1.0] Kernel panic - not syncing" > "$2"; exec sleep 7200', tmp_path, doom=b"Kernel panic")
