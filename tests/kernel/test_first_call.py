# SPDX-License-Identifier: Apache-2.0
"""The first call of the first process of a new cgroup is judged, while the daemon sleeps, is gone or starts."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
OTHERS = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: others}
spec:
  subject: {units: ["*-other.service"]}
  tier: admin
  egress: [{name: shut, action: deny}]
"""
PORT = "9"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if native.compiler() is None:
        pytest.skip("no C compiler; install one: apt-get install gcc")
    return native.build("first_call", tmp_path_factory.mktemp("native"))


class Governed(NamedTuple):
    root: Path
    daemon: RealDaemon


@contextmanager
def governed(directory: Path, objects: Path) -> Iterator[Governed]:
    """A tree that a daemon governs."""
    with sandbox.cgroup() as cgroup, sandbox.bpffs_mount() as bpffs:
        cgroup.child("parent")
        with RealDaemon(directory, cgroup.path, bpffs / "cgnetd") as daemon:
            daemon.write_policy("first.yaml", POLICY)
            daemon.start(object_dir=objects)
            yield Governed(cgroup.path, daemon)


@pytest.fixture(scope="module", params=["asleep", "stopped", "killed"])
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Iterator[Path]:
    """The root of a tree whose daemon does nothing any more."""
    with governed(tmp_path_factory.mktemp("daemon"), objects) as (root, daemon):
        match request.param:
            case "asleep":
                daemon.signal(signal.SIGSTOP)
            case "stopped":
                daemon.stop()
            case "killed":
                daemon.kill()
        yield root


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
def test_first_call_in_new_cgroup_is_denied_without_the_daemon(program: Path, alone: Path, start: Start) -> None:
    assert first_calls(program, alone, start, 200) == {"calls": 200, str(start.expected): 200}


def test_first_call_in_ungoverned_cgroup_is_allowed(program: Path, alone: Path) -> None:
    """The count of escapes can rise at all."""
    free = Start("", "free.service", "clone", 0, 0)
    assert first_calls(program, alone, free, 50) == {"calls": 50, "0": 50}


def test_first_call_is_denied_while_daemon_starts_again(program: Path, tmp_path: Path, objects: Path) -> None:
    """With other policies than before, so that cgroups are made while all of them get new labels."""
    with governed(tmp_path, objects) as (root, daemon):

        def restart() -> None:
            daemon.kill()
            daemon.write_policy("a-others.yaml", OTHERS)
            daemon.start(object_dir=objects)

        thread = threading.Thread(target=restart)
        thread.start()
        worker, calls = Start("", "worker.service", "clone", 1, errno.EACCES), 0
        while thread.is_alive() or calls < 200:
            began_at = time.monotonic()
            assert first_calls(program, root, worker, 50) == {"calls": 50, str(errno.EACCES): 50}
            calls += 50
            thread.join(3 * (time.monotonic() - began_at))  # it has to get on where there is one slow CPU
        assert daemon.ask("status")["generation"] > 1
