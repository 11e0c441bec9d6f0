# SPDX-License-Identifier: Apache-2.0
"""One daemon a pin directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgnetd.errors import PinError
from cgnetd.kernel.lock import PinLock, holder

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

HOLD = "import sys, pathlib\nfrom cgnetd.kernel.lock import PinLock\n"
HOLD += "lock = PinLock(pathlib.Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()\n"


def test_second_holder_is_told_who_holds_it(pin_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(pin_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(PinError, match=rf"held by pid {other.pid} \(.*{pin_dir}\)"):
                PinLock(pin_dir)
        finally:
            other.kill()
    with PinLock(pin_dir):
        assert holder(pin_dir).startswith(f"pid {os.getpid()} (")
    assert holder(pin_dir) == ""


def test_nobody_holds_what_is_not_there(pin_dir: Path) -> None:
    assert holder(pin_dir) == ""
    assert not pin_dir.exists()
