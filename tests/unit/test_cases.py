# SPDX-License-Identifier: Apache-2.0
"""Every call of every case file, judged by the reference semantics and by the compiled image."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import pytest

from cgnetd.policy.load import Source, parse
from support.cases import CASES_PATH, Call, CaseFile, load_all
from support.judge import Answer, Compiled, Reference, place_of

FILES = load_all()
BYPASSES = 57
KERNEL_ROWS = """
sa001-sa006 sa008-sa011 sa013 sa016 sa019-sa020 sa022-sa027 sa029-sa037 sa041-sa042 sa044 sa046-sa047 sa049 sa051 sa053
sa056 sa058-sa059 sa061-sa066 sa068-sa070 sa072-sa073 sa076-sa082 sa084 sa086-sa088 sa090-sa091 sa094-sa097 sa099
sa101-sa104 sa106 sc01-sc05 sc08 pb02-pb05 pb07-pb08 pb10-pb12 bp01 bp03-bp04 fp01-fp02 fp04 cp01 cp03-cp04 v1201-v1202
lc02-lc06 lc09-lc10 sd01-sd03 sd05 sd07 rv02-rv05 rv07-rv08 rv10-rv11 at01-at08 at10 at12 at14 at18-at22 at24-at25
at27-at28 ul01 tb01 mp02 mp04-mp05 so01 so03-so09 so12-so14 so16 so18 so20 ot01 ot05-ot09 ot11-ot13 ex01 ex04 ex06-ex08
ex11-ex16 ex20-ex21 ex23-ex27 ex29-ex31 ex33-ex40 ex42-ex45 ex47
"""
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
    if call.reaches is not None:
        assert answer.place == place_of(call.reaches)
    sets = dict(answer.sets)
    for name, value in call.shows:
        if name in sets:
            assert sets[name] == value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("file", "call"), CALLS)
def test_case_gets_its_verdict(file: CaseFile, call: Call, way: str) -> None:
    check(call, WAYS[way](file).answer(call))


def test_cases_are_as_many_as_promised() -> None:
    assert sum(len(file.calls) for file in FILES) >= 150


def test_every_known_bypass_is_covered_or_has_its_reason() -> None:
    """README.md names each row of the table of bypasses; the ones it says are in the cases are there."""
    covered = {row for row in covered_rows() if row.startswith("B")}
    text = (CASES_PATH / "README.md").read_text(encoding="utf-8").partition("## Rows of the table of bypasses")[2]
    (claim,) = [line for line in text.splitlines() if line.endswith("| cases here |")]
    assert rows_in(claim, "B") == covered
    assert rows_in(text, "B") == {f"B{number}" for number in range(1, BYPASSES + 1)}


def test_every_row_of_the_kernels_tests_is_covered_or_has_its_reason() -> None:
    """README.md names each row that no case names, and no others."""
    text = (CASES_PATH / "README.md").read_text(encoding="utf-8").partition("## Rows of the kernel's own tests")[2]
    lines = text.partition("## Rows of the table of bypasses")[0].splitlines()
    named = rows_in(" ".join(line.split("|")[1] for line in lines if line.startswith("|")), "[a-z]+")
    covered = {row for row in covered_rows() if not row.startswith("B")}
    rows = rows_in(KERNEL_ROWS, "[a-z]+")
    partly = {"fp01", "fp02", "fp04"}
    assert covered <= rows
    assert named == rows - covered | partly


def test_files_that_are_said_to_prove_rows_exist() -> None:
    text = (CASES_PATH / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"test_\w+\*?\.py", text))
    assert [name for name in named if not [*CASES_PATH.parent.glob(f"*/{name}")]] == []


def test_target_that_is_an_ipv4_mapped_address_is_no_ipv6_target() -> None:
    """What the kernel refuses when the call is made (ENOTSUPP) is refused when the policy is read."""
    text = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {units: [app.service]}
  egress: [{action: redirect, to: ["face:b00c:1234:5678::abcd"], redirect: {to: "[::ffff:192.168.0.4]:6666"}}]
"""
    result = parse([Source("mapped.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set is None
    assert "IPv6" in result.problems[0].message


def covered_rows() -> set[str]:
    return {row for file in FILES for call in file.calls for row in call.rows}


def rows_in(text: str, letters: str) -> set[str]:
    """Row names in a text that begin with such letters; "B1-B3" are three."""
    found = re.findall(rf"\b({letters})(\d+)(?:-\1(\d+))?\b", text)
    return {
        f"{stem}{number:0{len(first)}}"
        for stem, first, last in found
        for number in range(int(first), int(last or first) + 1)
    }
