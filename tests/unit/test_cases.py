# SPDX-License-Identifier: Apache-2.0
"""Every call of every case file, judged by the reference semantics and by the compiled image."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pytest

from support.cases import CASES_PATH, Call, CaseFile, load_all
from support.judge import Answer, Compiled, Reference

FILES = load_all()
BYPASSES = 57
CALLS = [pytest.param(file, call, id=call.name) for file in FILES for call in file.calls]
WAYS: dict[str, Callable[[CaseFile], Reference | Compiled]] = {"evaluate": cache(Reference), "image": cache(Compiled)}


def check(call: Call, answer: Answer) -> None:
    assert answer.errno == call.expect
    if call.rule is not None:
        assert answer.rule == call.rule
    if call.shadow is not None:
        assert answer.shadow == call.shadow
    if call.shadow_rule is not None:
        assert answer.shadow_rule == call.shadow_rule


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("file", "call"), CALLS)
def test_case_gets_its_verdict(file: CaseFile, call: Call, way: str) -> None:
    check(call, WAYS[way](file).answer(call))


def test_cases_are_as_many_as_promised() -> None:
    assert sum(len(file.calls) for file in FILES) >= 150


def test_every_known_bypass_is_covered_or_has_its_reason() -> None:
    """README.md names each row of the table of bypasses; the ones it says are in the cases are there."""
    covered = {row for file in FILES for call in file.calls for row in call.rows if row.startswith("B")}
    text = (CASES_PATH / "README.md").read_text(encoding="utf-8").partition("## Rows of the table of bypasses")[2]
    (claim,) = [line for line in text.splitlines() if line.endswith("| cases here |")]
    assert rows_in(claim) == covered
    assert rows_in(text) == {f"B{number}" for number in range(1, BYPASSES + 1)}


def rows_in(text: str) -> set[str]:
    """Row names in a text; "B1-B3" are three."""
    found = re.findall(r"B(\d+)(?:-B(\d+))?", text)
    return {f"B{number}" for first, last in found for number in range(int(first), int(last or first) + 1)}
