# SPDX-License-Identifier: Apache-2.0
"""Drop-in rules, and that a file is read whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgnetd.service.files import BeingWritten, read_whole, stamp
from cgnetd.service.policy_files import list_policies, read_paths, read_policies


@pytest.fixture
def dirs(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("etc", "run", "lib")]
    for directory in found:
        directory.mkdir()
    return found


def read(dirs: list[Path]) -> list[tuple[str, bytes]]:
    reading = read_policies(list_policies([str(d) for d in dirs]))
    assert reading.problems == ()
    return [(f"{Path(f.path).parent.name}/{Path(f.path).name}", f.data) for f in reading.files]


def test_files_that_are_too_large_together_are_refused(tmp_path: Path) -> None:
    for name, size in (("a", 9 << 20), ("b", 9 << 20), ("c", 1 << 20)):
        with (tmp_path / f"{name}.yaml").open("wb") as file:
            file.truncate(size)
    reading = read_policies(list_policies([str(tmp_path)]))
    (problem,) = reading.problems
    assert problem.file == str(tmp_path / "b.yaml")
    assert "16777216 bytes in all policy files together" in problem.message
    assert [len(content.data) >> 20 for content in reading.files] == [9, 1]


def test_first_directory_masks_later_ones_by_name(dirs: list[Path]) -> None:
    for directory in dirs:
        (directory / "a.yaml").write_text(directory.name)
    (dirs[2] / "b.yaml").write_text("b")
    assert read(dirs) == [("etc/a.yaml", b"etc"), ("lib/b.yaml", b"b")]


def test_files_are_sorted_by_name_across_directories(dirs: list[Path]) -> None:
    for directory, name in zip((0, 1, 2, 0), ("30.yaml", "10.yaml", "20.yaml", "40.yaml"), strict=True):
        (dirs[directory] / name).write_text("x")
    assert [name for name, _ in read(dirs)] == ["run/10.yaml", "lib/20.yaml", "etc/30.yaml", "etc/40.yaml"]


def test_link_to_dev_null_or_empty_file_disables_the_name(dirs: list[Path]) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        (dirs[2] / name).write_text("x")
    (dirs[0] / "a.yaml").symlink_to("/dev/null")
    (dirs[1] / "b.yaml").touch()
    assert read(dirs) == [("lib/c.yaml", b"x")]


def test_hidden_editor_and_other_files_are_ignored(dirs: list[Path]) -> None:
    for name in (".a.yaml", ".#a.yaml", "a.yaml~", ".a.yaml.swp", "a.yaml.bak", "README", "#a.yaml#"):
        (dirs[0] / name).write_text("x")
    assert read(dirs) == []


def test_mistaken_suffix_is_a_warning(dirs: list[Path]) -> None:
    (dirs[0] / "a.yml").write_text("x")
    reading = read_policies(list_policies([str(dirs[0])]))
    assert [str(w) for w in reading.warnings] == [f"{dirs[0]}/a.yml:0:0: ignored: policy files end in .yaml"]
    assert reading.files == ()


def test_missing_directory_holds_nothing(tmp_path: Path) -> None:
    reading = read_policies(list_policies([str(tmp_path / "none"), str(tmp_path / "nor" / "this")]))
    assert (reading.files, reading.problems) == ((), ())


def test_what_cannot_be_read_is_a_problem(dirs: list[Path], tmp_path: Path) -> None:
    (dirs[0] / "dangling.yaml").symlink_to("nowhere")
    (dirs[0] / "directory.yaml").mkdir()
    os.mkfifo(dirs[0] / "fifo.yaml")
    file = tmp_path / "file"
    file.touch()
    reading = read_policies(list_policies([str(dirs[0]), str(file)]))
    assert [(Path(p.file).name, p.message) for p in reading.problems] == [
        ("dangling.yaml", "cannot be read: No such file or directory"),
        ("directory.yaml", "cannot be read: not a regular file"),
        ("fifo.yaml", "cannot be read: not a regular file"),
        ("file", "directory cannot be read: Not a directory"),
    ]


def test_file_open_for_writing_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("whole")
    with open(path, "a") as writer:
        writer.write("half")
        writer.flush()
        with pytest.raises(BeingWritten):
            read_whole(str(path))
        assert read_paths([str(path)]).writing == (str(path),)
    assert read_whole(str(path)).data == b"wholehalf"


def test_truncated_file_with_its_writer_is_not_taken_for_a_disabled_one(dirs: list[Path]) -> None:
    path = dirs[0] / "a.yaml"
    path.write_text("x")
    with open(path, "w"):
        reading = read_policies(list_policies([str(dirs[0])]))
        assert reading.writing == (str(path),)
        assert reading.problems[0].message.startswith("open for writing")
    assert read(dirs) == []


def test_reader_survives_a_writer_that_comes_while_it_reads(tmp_path: Path) -> None:
    """A broken lease must neither kill the process nor show a mixture: each content is one of the written ones."""
    path = tmp_path / "a.yaml"
    path.write_text("0" * 100_000)
    code = (
        "import itertools, select, sys\n"
        "for i in itertools.count():\n"
        "    if select.select([sys.stdin], [], [], 0)[0]: break\n"
        "    with open(sys.argv[1], 'w') as f:\n"
        "        f.write(str(i % 10) * 50_000); f.flush(); f.write(str(i % 10) * 50_000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE) as writer:
        seen: set[str] = set()
        while len(seen) < 5:
            try:
                data = read_whole(str(path)).data
            except BeingWritten:
                continue
            assert len(data) == 100_000
            assert len(set(data)) == 1
            seen.add(str(data[:1]))
    assert writer.returncode == 0


def test_stamp_tells_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    missing = stamp(str(path))
    path.write_text("1")
    first = stamp(str(path))
    replacement = tmp_path / "b"
    replacement.write_text("2")
    os.utime(replacement, ns=(first.mtime_ns, first.mtime_ns))
    replacement.rename(path)
    assert len({missing, first, stamp(str(path))}) == 3
