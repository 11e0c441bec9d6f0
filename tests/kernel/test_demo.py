# SPDX-License-Identifier: Apache-2.0
"""`make demo` shows what it promises, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgnetd.kernel.cgroup import find_root

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(CHECKOUT / "tests" / "demo" / "run.py")]
TIMEOUT_S = 120

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="the demo attaches programs to cgroups: run as root"),
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("curl", "dig", "socat")), reason="curl, dig and socat are needed"
    ),
]


def left_behind() -> set[str]:
    places = (Path("/run"), find_root())
    return {str(path) for place in places for path in place.glob("cgnetd-demo-*")}


def test_demo_goes_as_the_examples_say_and_leaves_nothing() -> None:
    before = left_behind()
    ended = subprocess.run(COMMAND, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all as expected" in ended.stdout
    assert "left behind: nothing" in ended.stdout
    assert left_behind() <= before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_demo_that_is_ended_early_leaves_nothing(number: int) -> None:
    before = left_behind()
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        deadline = time.monotonic() + TIMEOUT_S
        while "enforces generation" not in demo.stdout.readline():
            assert time.monotonic() < deadline
            assert demo.poll() is None, demo.stderr and demo.stderr.read()
        assert left_behind() - before
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert (demo.returncode, errors) == (130, "")
    assert left_behind() <= before
