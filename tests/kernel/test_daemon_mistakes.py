# SPDX-License-Identifier: Apache-2.0
"""Every kind of mistake, put before the running daemon: each is told, and what is in force stays in force."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgnetd.cli.problems import DaemonError
from support.governed import OPEN, SHUT, Governed, connect, governed
from support.sandbox import bpffs_mount, cgroup

MISTAKES = sorted((Path(__file__).parent.parent / "unit" / "mistakes").glob("*.yaml"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Iterator[Governed]:
    with ExitStack() as stack:
        tree, pins = stack.enter_context(cgroup()), stack.enter_context(bpffs_mount())
        directory = tmp_path_factory.mktemp("daemon")
        found = stack.enter_context(governed(directory, tree, pins / "cgnetd", objects))
        found.start()
        yield found


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda path: path.stem)
def test_mistake_before_the_running_daemon_changes_nothing(mistake: Path, running: Governed) -> None:
    generation = running.daemon.ask("status")["generation"]
    placed = running.daemon.policy_dir / mistake.name
    placed.write_bytes(mistake.read_bytes())
    try:
        with pytest.raises(DaemonError) as caught:
            running.daemon.ask("reload")
        status = running.daemon.ask("status")
        calls = (connect(running.app, OPEN), connect(running.app, SHUT))
    finally:
        placed.unlink()
    assert caught.value.exit_code == 78
    assert str(placed) in {problem.file for problem in caught.value.problems}
    assert (status["enforcing"], status["generation"]) == (True, generation)
    assert calls == (0, errno.EHOSTUNREACH)
