# SPDX-License-Identifier: Apache-2.0
"""The surroundings of the kernel tests: nothing is left behind, nothing is skipped that must run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgnetd.kernel.cgroup import find_root
from support import sandbox
from support.sandbox import PrivateCgroup

TESTS = Path(__file__).parent.parent


def pytest_run(directory: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """One test file under our conftest, in a run of its own."""
    (directory / "conftest.py").write_bytes((TESTS / "conftest.py").read_bytes())
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = kernel: needs a kernel\n")
    (directory / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(directory)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    return subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)


def test_what_a_killed_run_left_is_removed(private_cgroup: PrivateCgroup) -> None:
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    name = f"{sandbox.PREFIX}-{dead}-0"
    left_cgroup, left_mount = find_root() / name, sandbox.RUN / name
    (left_cgroup / "a").mkdir(parents=True)
    left_mount.mkdir()
    sandbox.mount("bpf", left_mount, "bpf")
    with PrivateCgroup(left_cgroup / "a").popen(["/bin/sleep", "60"]) as sleeper:
        sandbox.remove_stale()
        assert sleeper.wait(timeout=10) != 0
    assert not left_cgroup.exists()
    assert not left_mount.exists()
    assert private_cgroup.path.exists()


SKIPPING = """
import pytest

@pytest.mark.kernel
def test_in_kernel():
    pytest.skip("no such thing")

def test_elsewhere():
    pytest.skip("not today")
"""


def test_kernel_test_that_cannot_run_is_skipped(tmp_path: Path) -> None:
    run = pytest_run(tmp_path, SKIPPING)
    assert run.returncode == 0
    assert "2 skipped" in run.stdout


def test_kernel_test_that_cannot_run_fails_where_required(tmp_path: Path) -> None:
    run = pytest_run(tmp_path, SKIPPING, "--require-kernel")
    assert run.returncode == 1
    assert "--require-kernel: Skipped: no such thing" in run.stdout
    assert "1 failed, 1 skipped" in run.stdout


CARELESS = """
from cgnetd.kernel.cgroup import find_root
from support import sandbox

def test_careless():
    (find_root() / sandbox.fresh_name()).mkdir()
"""


def test_leftover_of_a_test_fails_the_run(tmp_path: Path) -> None:
    run = pytest_run(tmp_path, CARELESS)
    assert run.returncode == 1
    assert f"left behind by the tests: {find_root()}/{sandbox.PREFIX}-" in run.stdout


def test_result_and_exception_of_a_call_come_back(private_cgroup: PrivateCgroup) -> None:
    assert private_cgroup.call(lambda: Path("/proc/self/cgroup").read_text().splitlines()[-1]).endswith(
        private_cgroup.path.name
    )
    with pytest.raises(FileNotFoundError, match="/missing"):
        private_cgroup.call(Path("/missing").read_text)
