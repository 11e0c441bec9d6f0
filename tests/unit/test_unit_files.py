# SPDX-License-Identifier: Apache-2.0
"""Subjects that call a unit by another name than its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgnetd.policy.types import Pattern, PatternKind, Policy, PolicySet, Subject, Where
from cgnetd.service.unit_files import alias_doubts


def doubts(directories: tuple[Path, ...], *words: str, kind: PatternKind = PatternKind.UNIT) -> list[str]:
    """The messages about a policy for these units."""
    subject = Subject(tuple(Pattern(kind, word) for word in words))
    found = alias_doubts(PolicySet((Policy("p", subject, Where("f.yaml", 3)),)), tuple(map(str, directories)))
    assert all((doubt.file, doubt.line, doubt.key) == ("f.yaml", 3, "spec.subject") for doubt in found)
    return [doubt.message for doubt in found]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Two directories of unit files; the first one comes first."""
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    etc.mkdir()
    lib.mkdir()
    for name in ("ssh.service", "getty@.service", "real.service"):
        (lib / name).touch()
    return etc, lib


@pytest.mark.parametrize("target", ["ssh.service", "{lib}/ssh.service", "../lib/ssh.service"])
def test_alias_is_told_with_the_real_name(places: tuple[Path, Path], target: str) -> None:
    (places[0] / "sshd.service").symlink_to(target.format(lib=places[1]))
    (told,) = doubts(places, "sshd.service", "ssh.service", "other.service")
    assert told == '"sshd.service" is another name of ssh.service and the name of no cgroup: write ssh.service'


def test_alias_of_an_alias_is_told_with_the_real_name(places: tuple[Path, Path]) -> None:
    (places[0] / "first.service").symlink_to("second.service")
    (places[0] / "second.service").symlink_to(places[1] / "real.service")
    (told,) = doubts(places, "first.service")
    assert "write real.service" in told


def test_alias_in_not_is_told(places: tuple[Path, Path]) -> None:
    (places[0] / "sshd.service").symlink_to("ssh.service")
    subject = Subject((Pattern(PatternKind.PATH, "/"),), (Pattern(PatternKind.UNIT, "sshd.service"),))
    policies = PolicySet((Policy("p", subject, Where("f.yaml", 3)),))
    assert len(alias_doubts(policies, tuple(map(str, places)))) == 1


@pytest.mark.parametrize(
    ("word", "real"), [("autovt@.service", "getty@.service"), ("autovt@tty1.service", "getty@tty1.service")]
)
def test_alias_of_a_template_keeps_the_instance(places: tuple[Path, Path], word: str, real: str) -> None:
    (places[1] / "autovt@.service").symlink_to("getty@.service")
    (told,) = doubts(places, word)
    assert told.endswith(f"write {real}")


def test_alias_of_an_instance_is_told(places: tuple[Path, Path]) -> None:
    (places[0] / "console.service").symlink_to("getty@console.service")
    (told,) = doubts(places, "console.service")
    assert told.endswith("write getty@console.service")


def test_links_that_are_no_other_names_are_left_alone(places: tuple[Path, Path]) -> None:
    (places[0] / "masked.service").symlink_to("/dev/null")
    (places[0] / "linked.service").symlink_to("/srv/elsewhere.service")
    (places[0] / "getty@tty1.service").symlink_to(places[1] / "getty@.service")
    (places[0] / "same.service").symlink_to(places[1] / "same.service")
    assert not doubts(places, "masked.service", "linked.service", "getty@tty1.service", "same.service")


def test_what_hides_an_alias_is_believed(places: tuple[Path, Path]) -> None:
    (places[1] / "sshd.service").symlink_to("ssh.service")
    assert doubts(places, "sshd.service")
    (places[0] / "sshd.service").touch()
    assert not doubts(places, "sshd.service")


def test_links_in_a_circle_end(places: tuple[Path, Path]) -> None:
    (places[0] / "a.service").symlink_to("b.service")
    (places[0] / "b.service").symlink_to("a.service")
    assert len(doubts(places, "a.service")) <= 1


def test_globs_user_units_and_missing_directories_are_left_alone(places: tuple[Path, Path]) -> None:
    (places[0] / "sshd.service").symlink_to("ssh.service")
    assert not doubts(places, "ssh*.service", "sshd.slice")
    assert not doubts(places, "sshd.service", kind=PatternKind.USER_UNIT)
    assert not doubts((places[0] / "missing",), "sshd.service")
