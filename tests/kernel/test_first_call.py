# SPDX-License-Identifier: Apache-2.0
"""The first call of the first process of a new cgroup is judged, while the daemon sleeps or is gone."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import first_call
from support.first_call import Start, first_calls, governed


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_call.build(tmp_path_factory.mktemp("native"))


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
