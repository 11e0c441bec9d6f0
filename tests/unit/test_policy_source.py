# SPDX-License-Identifier: Apache-2.0
"""What the files ask for: read again only when needed, all or nothing, never half a file."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

import pytest

from cgnetd.policy.types import Action
from cgnetd.service.policy_source import PolicySource

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  subject: {{cgroups: ["/{name}"]}}
  egress: [{{action: deny, to: [{to}]}}]
"""
SET = """\
---
apiVersion: cgnetd/v1
kind: AddressSet
metadata: {{name: s}}
spec: {{files: [{path}]}}
"""


@pytest.fixture
def source(tmp_path: Path) -> PolicySource:
    return PolicySource([str(tmp_path / "policy.d")], Action.ALLOW, 1 << 20)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "policy.d"
    made.mkdir()
    return made


def write(path: Path, text: str, age_s: float = 10.0) -> None:
    """A file that was written some time ago."""
    path.write_text(text)
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_no_directory_asks_for_no_policies(source: PolicySource) -> None:
    asked = source.look()
    assert asked.image is not None
    assert asked.image.index.policies == ()
    assert asked.problems == ()


def test_unchanged_files_are_not_parsed_again(source: PolicySource, directory: Path) -> None:
    write(directory / "a.yaml", POLICY.format(name="a", to="10.0.0.0/8"))
    first = source.look()
    assert source.look() is first
    os.utime(directory / "a.yaml")  # touched, not changed
    assert source.look() is first
    assert source.look(force=True) is first


def test_forced_look_asks_again_who_a_user_is(
    source: PolicySource, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = POLICY.format(name="a", to="10.0.0.0/8")
    write(directory / "a.yaml", text.replace("subject: {", "subject: {users: [daemon], "))
    first = source.look()
    assert first.image is not None
    record = pwd.getpwnam("daemon")
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: pwd.struct_passwd((*record[:2], 61234, *record[3:])))
    assert source.look() is first
    again = source.look(force=True)
    assert again.image is not None
    assert again.image.digest != first.image.digest


def test_change_of_the_same_size_and_time_is_seen(source: PolicySource, directory: Path) -> None:
    path = directory / "a.yaml"
    write(path, POLICY.format(name="a", to="10.0.0.0/8"))
    before = source.look().image
    stamp = path.stat().st_mtime_ns
    replacement = directory / ".new"
    replacement.write_text(POLICY.format(name="a", to="11.0.0.0/8"))
    os.utime(replacement, ns=(stamp, stamp))
    replacement.rename(path)
    after = source.look().image
    assert before is not None
    assert after is not None
    assert before.digest != after.digest


def test_quick_changes_are_seen_whatever_the_clock_tells(source: PolicySource, directory: Path) -> None:
    path = directory / "a.yaml"
    digests = set()
    for number in range(10, 30):
        path.write_text(POLICY.format(name="a", to=f"{number}.0.0.0/8"))
        image = source.look().image
        assert image is not None
        digests.add(image.digest)
    assert len(digests) == 20


def test_file_that_comes_while_others_are_read_is_seen(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 10**9)  # long after all files changed
    old = tmp_path / "b.yaml"
    write(old, POLICY.format(name="b", to="10.0.0.0/8"))
    write(directory / "a.yaml", POLICY.format(name="a", to="10.0.0.0/8"))
    link = directory / "b.yaml"
    reading = PolicySource([str(directory)], Action.ALLOW, 1 << 20, find_refusals=lambda _: link.symlink_to(old) or ())
    assert reading.look().image is not None
    monkeypatch.setattr(reading, "_find_refusals", lambda _: ())
    image = reading.look().image
    assert image is not None
    assert [policy.name for policy in image.index.policies] == ["a", "b"]


def test_mistake_keeps_the_last_good_set_and_tells_all(source: PolicySource, directory: Path) -> None:
    write(directory / "a.yaml", POLICY.format(name="a", to="10.0.0.0/8"))
    good = source.look()
    write(directory / "b.yaml", POLICY.format(name="b", to="10.0.0.1/8"))
    write(directory / "c.yaml", POLICY.format(name="c", to="nonsense"))
    asked = source.look()
    assert asked.image is good.image
    assert {Path(problem.file).name for problem in asked.problems} == {"b.yaml", "c.yaml"}
    (directory / "b.yaml").unlink()
    (directory / "c.yaml").unlink()
    assert source.look().problems == ()


def test_set_file_is_an_input(source: PolicySource, directory: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    write(directory / "a.yaml", POLICY.format(name="a", to='"set:s"') + SET.format(path=listed))
    missing = source.look()
    assert missing.image is None
    assert "No such file" in missing.problems[0].message
    write(listed, "192.0.2.0/24\n")
    first = source.look().image
    write(listed, "198.51.100.0/24\n")
    second = source.look().image
    assert first is not None
    assert second is not None
    assert first.digest != second.digest
    assert str(listed) in source.paths()


def test_file_being_written_is_waited_for(source: PolicySource, directory: Path) -> None:
    path = directory / "a.yaml"
    write(path, POLICY.format(name="a", to="10.0.0.0/8"))
    good = source.look().image
    with path.open("a") as writer:
        writer.write("# more\n")
        writer.flush()
        asked = source.look()
        assert asked.writing == (str(path),)
        assert asked.image is good
        assert [problem.message.split(":")[0] for problem in asked.problems] == ["open for writing"]
    asked = source.look()
    assert (asked.writing, asked.problems) == ((), ())


def test_set_that_does_not_fit_is_a_problem_of_its_policy(tmp_path: Path, directory: Path) -> None:
    write(directory / "a.yaml", POLICY.format(name="a", to="10.0.0.0/8"))
    asked = PolicySource([str(directory)], Action.ALLOW, 10).look()
    assert asked.image is None
    assert asked.problems[0].file == str(directory / "a.yaml")
