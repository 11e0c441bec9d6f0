# SPDX-License-Identifier: Apache-2.0
"""What is kept is whole, built once, and never what a builder left that failed or was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from beds import cache


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "kept"))


def tree(path: Path) -> None:
    path.mkdir()
    (path / "whole").touch()


def refuse(path: Path) -> None:
    raise AssertionError(f"built again: {path}")


def test_thing_is_built_once() -> None:
    first = cache.kept("tree", tree)
    assert (first / "whole").exists()
    assert cache.kept("tree", refuse) == first


def test_failed_build_leaves_nothing() -> None:
    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.kept("tree", fail)
    assert [path.name for path in cache.directory().iterdir()] == [".tree.lock"]
    assert (cache.kept("tree", tree) / "whole").exists()


def test_what_a_killed_builder_left_is_thrown_away() -> None:
    left = cache.directory() / ".tree.new"
    left.mkdir(parents=True)
    (left / "half").touch()
    assert [path.name for path in cache.kept("tree", tree).iterdir()] == ["whole"]


# What it starts does not mind being asked to end, and goes on until it is done.
_KILLED = """
import sys
from pathlib import Path
from beds import cache, commands

def build(path: Path) -> None:
    path.mkdir()
    commands.run(["sh", "-c", 'trap "" TERM; touch begun; sleep 0.3; touch done'])

cache.kept("tree", build)
"""


def test_what_a_killed_builder_started_is_waited_for(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(cache.__file__).parent.parent)}
    with subprocess.Popen([sys.executable, "-c", _KILLED], env=environment, cwd=tmp_path) as builder:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        builder.kill()

    def build(path: Path) -> None:
        assert (tmp_path / "done").exists()
        tree(path)

    assert [path.name for path in cache.kept("tree", build).iterdir()] == ["whole"]


def test_second_builder_waits_for_the_first() -> None:
    begun = threading.Event()

    def slowly(path: Path) -> None:
        begun.set()
        time.sleep(0.1)
        tree(path)

    first = threading.Thread(target=cache.kept, args=("tree", slowly))
    first.start()
    assert begun.wait(60)
    assert (cache.kept("tree", refuse) / "whole").exists()
    first.join()


def test_key_tells_parts_apart() -> None:
    assert cache.key("ab", "c") == cache.key("ab", b"c") != cache.key("a", "bc")
