# SPDX-License-Identifier: Apache-2.0
"""Processes that call out as the first thing they do in new cgroups, and a daemon that governs those.

Must not know what a test does to the daemon.
"""

from __future__ import annotations

import json
import subprocess
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
PORT = "9"


class Governed(NamedTuple):
    root: Path
    daemon: RealDaemon


@contextmanager
def governed(directory: Path, objects: Path) -> Iterator[Governed]:
    """A tree that a daemon governs by POLICY."""
    with sandbox.cgroup() as cgroup, sandbox.bpffs_mount() as bpffs:
        cgroup.child("parent")
        with RealDaemon(directory, cgroup.path, bpffs / "cgnetd") as daemon:
            daemon.write_policy("first.yaml", POLICY)
            daemon.start(object_dir=objects)
            yield Governed(cgroup.path, daemon)


class Start(NamedTuple):
    """How processes start: in cgroups called N-`suffix` (and `depth` more below each) of `place`."""

    place: str
    suffix: str
    how: str
    depth: int
    expected: int


def first_calls(program: Path, root: Path, start: Start, count: int) -> dict[str, int]:
    """How often which errno came back, and of how many calls."""
    where = [str(root / start.place), start.suffix, str(count), start.how, str(start.depth)]
    command = [str(program), *where, "127.0.0.1", PORT]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return found


def build(into: Path) -> Path:
    """The program that `first_calls` runs; skips where there is no compiler."""
    if native.compiler() is None:
        pytest.skip("no C compiler; install one: apt-get install gcc")
    return native.build("first_call", into)
