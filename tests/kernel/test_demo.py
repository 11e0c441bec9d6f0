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
TIMEOUT_S = 300

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="the demo attaches programs to cgroups: run as root"),
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("curl", "dig", "socat")), reason="curl, dig and socat are needed"
    ),
]


def made_by(demo: subprocess.Popen[str]) -> list[Path]:
    """What of a demo is there now: others may run beside it."""
    return [*Path("/run").glob(f"cgnetd-demo-{demo.pid}-*"), *find_root().glob(f"cgnetd-demo-{demo.pid}")]


def test_demo_goes_as_the_examples_say_and_leaves_nothing() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        told, errors = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 0, told + errors
    assert "all as expected" in told
    assert "left behind: nothing" in told
    assert made_by(demo) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_demo_that_is_ended_early_leaves_nothing(number: int) -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        deadline = time.monotonic() + TIMEOUT_S
        while "enforces generation" not in demo.stdout.readline():
            assert time.monotonic() < deadline
            assert demo.poll() is None, demo.stderr and demo.stderr.read()
        assert len(made_by(demo)) == 2
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=TIMEOUT_S)
    assert (demo.returncode, errors) == (130, "")
    assert made_by(demo) == []
