# SPDX-License-Identifier: Apache-2.0
"""What every test may use: --require-kernel, private cgroups and bpffs mounts, and the check that none are left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support import sandbox
from support.sandbox import PrivateCgroup

TOP = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-kernel",
        action="store_true",
        help="a kernel test that cannot run here fails instead of being skipped",
    )


def pytest_sessionstart() -> None:
    if os.geteuid() == 0:
        sandbox.remove_stale()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What is left of our own fails the run."""
    left = [path for path in sandbox.leftovers() if sandbox.owner(path) == os.getpid()]
    for path in left:
        sandbox.remove(path)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nleft behind by the tests: " + ", ".join(map(str, left)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """--require-kernel: a skipped kernel test is a failed one."""
    report = yield
    required = item.config.getoption("--require-kernel") and item.get_closest_marker("kernel")
    if required and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
        report.longrepr = f"--require-kernel: {reason}"
    return report


@pytest.fixture
def private_cgroup() -> Iterator[PrivateCgroup]:
    """A fresh cgroup below the cgroup2 root; everything in it is killed and removed at the end."""
    with sandbox.cgroup() as made:
        yield made


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """The mount point of an empty bpffs of its own."""
    with sandbox.bpffs_mount() as point:
        yield point


@pytest.fixture(scope="session")
def clang() -> str:
    """The compiler of BPF programs; skips where there is none."""
    found = shutil.which("clang")
    if found is None:
        pytest.skip("no clang in PATH; install it: apt-get install clang")
    return found


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The shipped programs, built from the tree as it is, or those in the directory that CGNETD_OBJECTS names."""
    given = os.environ.get("CGNETD_OBJECTS")
    if given:
        return Path(given).resolve()
    clang = request.getfixturevalue("clang")
    out = tmp_path_factory.mktemp("objects")
    subprocess.run(["make", "-s", "-C", TOP / "bpf", f"OUT={out}", f"CLANG={clang}"], check=True)
    return out
