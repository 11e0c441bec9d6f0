# SPDX-License-Identifier: Apache-2.0
"""The first call of the first process of a new cgroup is judged, while the daemon does not run at all (SIGSTOP)."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support import native, sandbox
from support.daemon import RealDaemon

POLICY = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: workers}
spec:
  subject: {units: ["*-worker.service"]}
  egress: [{name: shut, action: deny, to: [127.0.0.0/8], errno: EACCES}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: below}
spec:
  subject: {cgroups: ["/parent/**"]}
  egress: [{name: shut, action: deny, to: [127.0.0.0/8], errno: EHOSTUNREACH}]
"""
PORT = "9"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if native.compiler() is None:
        pytest.skip("no C compiler; install one: apt-get install gcc")
    return native.build("first_call", tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Iterator[Path]:
    """The root of a tree that a daemon governs which sleeps by SIGSTOP."""
    directory = tmp_path_factory.mktemp("daemon")
    with sandbox.cgroup() as cgroup, sandbox.bpffs_mount() as bpffs:
        cgroup.child("parent")
        with RealDaemon(directory, cgroup.path, bpffs / "cgnetd") as daemon:
            daemon.write_policy("first.yaml", POLICY)
            daemon.start(object_dir=objects)
            daemon.signal(signal.SIGSTOP)
            yield cgroup.path
            daemon.signal(signal.SIGCONT)


class Start(NamedTuple):
    """How processes start: in cgroups called N-`suffix` (and `depth` more below each) of `place`."""

    place: str
    suffix: str
    how: str
    depth: int
    expected: int


def first_calls(program: Path, root: Path, start: Start, count: int) -> dict[str, int]:
    where = [str(root / start.place), start.suffix, str(count), start.how, str(start.depth)]
    command = [str(program), *where, "127.0.0.1", PORT]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return found


@pytest.mark.parametrize(
    "start",
    [
        Start("", "worker.service", "clone", 0, errno.EACCES),
        Start("", "worker.service", "move", 0, errno.EACCES),
        Start("", "worker.service", "clone", 3, errno.EACCES),
        Start("parent", "any", "clone", 0, errno.EHOSTUNREACH),
        Start("parent", "any", "move", 2, errno.EHOSTUNREACH),
    ],
)
def test_first_call_in_new_cgroup_is_denied_while_daemon_is_stopped(program: Path, stopped: Path, start: Start) -> None:
    assert first_calls(program, stopped, start, 200) == {"calls": 200, str(start.expected): 200}


def test_first_call_in_ungoverned_cgroup_is_allowed(program: Path, stopped: Path) -> None:
    """The count of escapes can rise at all."""
    free = Start("", "free.service", "clone", 0, 0)
    assert first_calls(program, stopped, free, 50) == {"calls": 50, "0": 50}
