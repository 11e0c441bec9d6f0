# SPDX-License-Identifier: Apache-2.0
"""docs/systemd.md is what its data say, its policies are policies, and no case of it is vacuous."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from cgnetd.cli import ctl
from system.side_by_side import data, page
from system.side_by_side.data import CGNETD, NOTHING, OK, SYSTEMD, Case, Translation

CASES = [pytest.param(case, id=case.name) for case in data.cases()]
GUIDE = [pytest.param(one, id=one.setting.replace("\n", " ")) for one in data.guide()]


def check(directory: Path, *documents: object) -> int:
    file = directory / "page.yaml"
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return ctl.main(["check", "--json", str(file)])


def test_page_is_the_one_written_from_the_cases() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "PYTHONPATH=tests python -m system.side_by_side.page"


def test_names_of_cases_differ() -> None:
    assert [name for name, count in Counter(case.name for case in data.cases()).items() if count > 1] == []


@pytest.mark.parametrize("case", CASES)
def test_case_has_calls_that_tell_apart(case: Case) -> None:
    assert len(set(case.calls)) == len(case.calls) > 0
    differs = any(
        case.expected(side, call) != case.expected(NOTHING, call) for side in (SYSTEMD, CGNETD) for call in case.denied
    )
    assert differs == bool(case.denied)


@pytest.mark.parametrize("case", CASES)
def test_results_by_words_belong_to_calls(case: Case) -> None:
    for side, results in case.told.items():
        for words in results:
            assert any(f"{call} ".startswith(f"{words} ") for call in case.calls), f"{side}: {words}"


@pytest.mark.parametrize("case", CASES)
def test_policies_of_a_case_are_accepted_by_check(case: Case, tmp_path: Path) -> None:
    assert check(tmp_path, *case.documents()) == 0


@pytest.mark.parametrize("one", GUIDE)
def test_policy_of_the_guide_is_accepted_by_check(
    one: Translation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, data.document(one)) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == []


def test_guide_as_printed_is_the_guide() -> None:
    printed = page.PAGE.read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert [yaml.safe_load(text.partition("```")[0]) for text in printed] == [
        data.document(one) for one in data.guide()
    ]


@pytest.mark.parametrize(
    ("call", "systemd", "cgnetd", "who"),
    [
        ("allowed", OK, OK, "agree"),
        ("allowed", OK, "EPERM", "systemd does more"),
        ("allowed", "EPERM", OK, "cgnetd does more"),
        ("allowed", "EPERM", "EACCES", "neither"),
        ("denied", "silence", "EPERM", "agree"),
        ("denied", OK, "EPERM", "cgnetd does more"),
        ("denied", "EPERM", OK, "systemd does more"),
        ("denied", OK, OK, "neither"),
    ],
)
def test_verdict_is_who_does_what_is_wanted(call: str, systemd: str, cgnetd: str, who: str) -> None:
    told = {SYSTEMD: {call: systemd}, CGNETD: {call: cgnetd}}
    case = Case("a", "a", "a", (), {}, (), None, ("allowed",), ("denied",), told, {SYSTEMD: {}, CGNETD: {}}, "")
    assert page.verdict(case, call) == who
