# SPDX-License-Identifier: Apache-2.0
"""Which file events are worth a pass, and when it is due."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.service.watch import Change, Debounce, Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


def follow(watch: Watch, directory: Path, files: tuple[str, ...] = (), trees: tuple[str, ...] = ()) -> None:
    watch.follow(directories=[str(directory)], files=files, trees=trees)


def test_written_file_counts_when_its_writer_has_closed_it(watch: Watch, tmp_path: Path) -> None:
    follow(watch, tmp_path)
    with open(tmp_path / "a.yaml", "w") as stream:
        stream.write("x")
        stream.flush()
        assert watch.read() is Change.STIRRING
    assert watch.read() is Change.LOOK
    assert watch.read() is Change.NONE


def test_rename_link_and_removal_count(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("x")
    follow(watch, tmp_path)
    (tmp_path / "new").rename(tmp_path / "a.yaml")
    assert watch.read() is Change.LOOK
    (tmp_path / "b.yaml").symlink_to("/dev/null")
    assert watch.read() is Change.LOOK
    (tmp_path / "c.yaml").hardlink_to(tmp_path / "a.yaml")
    assert watch.read() is Change.LOOK
    (tmp_path / "a.yaml").unlink()
    assert watch.read() is Change.LOOK


def test_other_names_do_not_count(watch: Watch, tmp_path: Path) -> None:
    follow(watch, tmp_path)
    for name in (".a.yaml.swp", ".#a.yaml", "a.yaml~", "4913"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).unlink()
    assert watch.read() is Change.NONE


def test_directory_that_comes_later_counts_and_is_followed(watch: Watch, tmp_path: Path) -> None:
    directory = tmp_path / "etc" / "policy.d"
    follow(watch, directory)
    (tmp_path / "unrelated.yaml").write_text("x")
    assert watch.read() is Change.NONE
    (tmp_path / "etc").mkdir()
    assert watch.read() is Change.LOOK
    follow(watch, directory)
    directory.mkdir()
    assert watch.read() is Change.LOOK
    follow(watch, directory)
    (directory / "a.yaml").write_text("x")
    assert watch.read() is Change.LOOK


def test_removed_directory_counts_and_is_awaited(watch: Watch, tmp_path: Path) -> None:
    directory = tmp_path / "policy.d"
    directory.mkdir()
    follow(watch, directory)
    directory.rmdir()
    assert watch.read() is Change.LOOK
    follow(watch, directory)
    directory.mkdir()
    assert watch.read() is Change.LOOK


def test_set_file_counts_by_its_name_and_by_its_target(watch: Watch, tmp_path: Path) -> None:
    for name in ("policies", "sets", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "real" / "list").write_text("1")
    (tmp_path / "sets" / "list.txt").symlink_to(tmp_path / "real" / "list")
    follow(watch, tmp_path / "policies", files=(str(tmp_path / "sets" / "list.txt"),))
    (tmp_path / "sets" / "other.txt").write_text("x")
    assert watch.read() is Change.NONE
    (tmp_path / "real" / "list").write_text("2")
    assert watch.read() is Change.LOOK
    (tmp_path / "sets" / "list.txt").unlink()
    assert watch.read() is Change.LOOK


def test_anything_in_a_tree_counts(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "pins" / "links").mkdir(parents=True)
    (tmp_path / "pins" / "links" / "connect4").touch()
    (tmp_path / "policies").mkdir()
    follow(watch, tmp_path / "policies", trees=(str(tmp_path / "pins"),))
    (tmp_path / "pins" / "links" / "connect4").unlink()
    assert watch.read() is Change.LOOK


def test_what_is_no_longer_followed_is_silent(watch: Watch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    follow(watch, tmp_path / "a")
    follow(watch, tmp_path / "b")
    (tmp_path / "a" / "x.yaml").write_text("x")
    assert watch.read() is Change.NONE


def test_debounce_waits_for_quiet_but_not_for_ever() -> None:
    debounce = Debounce(quiet_s=0.1, longest_s=1.0)
    debounce.note(Change.STIRRING, 0.0)
    assert debounce.deadline is None
    debounce.note(Change.LOOK, 1.0)
    assert debounce.deadline == pytest.approx(1.1)
    debounce.note(Change.STIRRING, 1.05)
    assert debounce.deadline == pytest.approx(1.15)
    debounce.note(Change.NONE, 1.14)
    assert debounce.deadline == pytest.approx(1.15)
    debounce.note(Change.LOOK, 1.99)
    assert debounce.deadline == pytest.approx(2.0)
    debounce.clear()
    debounce.note(Change.LOOK, 5.0)
    assert debounce.deadline == pytest.approx(5.1)
