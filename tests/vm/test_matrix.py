# SPDX-License-Identifier: Apache-2.0
"""What is written of kernels is what records say, and the page in docs/ is of the capabilities that there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vm import matrix, record
from vm.capabilities import costs
from vm.outcome import Outcome
from vm.record import Record

UNIX = "tests/kernel/test_unix.py::test_any"
DIAG = "tests/kernel/test_destroy.py::test_flows[sock_diag-v4]"


def made(place: str, kernel: str, outcome: str, *, has: bool, build: str = "#1") -> Record:
    outcomes = (Outcome(UNIX, outcome, 1.0, ""), Outcome(DIAG, "passed", 1.0, ""))
    return Record(place, kernel, build, dict.fromkeys(costs(), has), outcomes)


NEW = made("host", "6.18.44", "passed", has=True)
OLD = made("6.1", "6.1.0-50-cloud-amd64", "skipped", has=False, build="#1 SMP Debian 6.1.187-1 (2026-01-01)")


def cells(text: str, first: str) -> list[str]:
    row = next(line for line in text.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def test_page_says_what_works_where_in_the_order_of_versions() -> None:
    text = matrix.page([NEW, OLD])
    assert text == matrix.page([OLD, NEW])
    assert cells(text, "`unix_hooks`") == ["`unix_hooks`", "lacking", "works (1)", costs()["unix_hooks"]]
    assert cells(text, "`sock_destroy`")[1:3] == ["lacking (1)", "works (1)"]
    assert cells(text, "6.1 ")[1:] == [
        "6.1.0-50-cloud-amd64 (Debian 6.1.187-1)",
        "`make test-vm KERNEL=6.1`",
        "1",
        "1",
    ]
    assert [line.split(" | ")[1:] for line in text.splitlines() if "(`test_unix.py`)" in line] == [
        ["0, 1 skipped", "1 |"]
    ]


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "record.json"
    record.write(path, OLD)
    assert record.read(path) == OLD
    assert [one.name for one in path.parent.iterdir()] == ["record.json"]


def test_later_record_replaces_what_an_earlier_one_says_of_its_files() -> None:
    later = replace(OLD, outcomes=(Outcome(UNIX.replace("any", "other"), "passed", 1.0, ""),))
    merged, other = record.merge([OLD, NEW, later])
    assert [(one.test, one.outcome) for one in merged.outcomes] == [
        (DIAG, "passed"),
        (later.outcomes[0].test, "passed"),
    ]
    assert other == NEW


def test_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"kernel": "6.1"}')
    with pytest.raises(ValueError, match="not a record of a run"):
        record.read(path)


def test_committed_page_has_every_capability_with_what_is_lost_without_it() -> None:
    text = matrix.PAGE.read_text(encoding="utf-8")
    assert {name: cells(text, f"`{name}`")[-1] for name in costs()} == costs()
