# SPDX-License-Identifier: Apache-2.0
"""Every call of every case file, judged by the reference semantics and by the compiled image."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from support.cases import Call, CaseFile, load_all
from support.judge import Answer, Compiled, Reference

FILES = load_all()
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
