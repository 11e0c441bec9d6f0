# SPDX-License-Identifier: Apache-2.0
"""What a virtual machine tells is counted right, and only what was heard to the end is good."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cgnetd.kernel.features import COSTS
from vm import selection
from vm.capabilities import OTHERS, capabilities, costs
from vm.heard import Run
from vm.junit import write_junit
from vm.outcome import Outcome
from vm.selection import lacking, used

HELLO = {"kernel": "6.1.0", "build": "#1", "capabilities": {"btf": True, "unix_hooks": False}}


def told(*lines: dict[str, object]) -> Run:
    run = Run()
    for line in (HELLO, *lines):
        run.hear(json.dumps(line))
    return run


def outcome(kind: str) -> dict[str, object]:
    return {"test": f"tests/x.py::test_{kind}", "outcome": kind, "seconds": 1.5, "text": "why\x00"}


def test_run_is_good_when_nothing_failed_and_it_ended() -> None:
    run = told(outcome("passed"), outcome("skipped"), {"exit": 0})
    assert run.good
    assert run.lacking() == ["unix_hooks"]


@pytest.mark.parametrize(
    "lines",
    [
        (outcome("passed"), outcome("failed"), {"exit": 0}),
        (outcome("passed"), {"exit": 1}),
        (outcome("passed"),),
        (outcome("skipped"), {"exit": 0}),
    ],
    ids=["failed", "exit-code", "unfinished", "nothing-ran"],
)
def test_run_is_not_good(lines: tuple[dict[str, object], ...]) -> None:
    assert not told(*lines).good


def test_test_that_never_ended_has_a_name_and_noise_has_none() -> None:
    run = told({"start": "tests/x.py::test_hangs"})
    run.hear("[   10.4] something from the kernel")
    assert run.started == "tests/x.py::test_hangs"


def test_needs_are_looked_up_by_test() -> None:
    assert lacking("tests/kernel/test_unix.py::test_any", ["btf"]) == ("unix_hooks",)
    assert lacking("tests/kernel/test_unix.py::test_any", ["btf", "unix_hooks"]) == ()
    assert lacking("tests/kernel/test_destroy.py::test_flows[iterator-v4]", []) == ("sock_destroy",)
    assert lacking("tests/kernel/test_destroy.py::test_flows[sock_diag-v4]", []) == ()


def test_what_a_test_uses_is_what_it_needs_and_more() -> None:
    assert used("tests/kernel/test_unix.py::test_any")[0] == "unix_hooks"
    assert set(used("tests/kernel/test_destroy.py::test_flows[sock_diag-v4]")) >= {"btf", "sock_destroy"}


def test_every_capability_that_tests_need_or_use_has_a_cost() -> None:
    named = {name for _, names in (*selection.NEEDS, *selection.USES) for name in names}
    assert named == set(costs()) == {*COSTS, *OTHERS}


def test_selected_files_exist() -> None:
    top = Path(__file__).parent.parent.parent
    patterns = (*selection.TESTS, *selection.LEFT_OUT)
    assert [one for one in patterns if not (top / one.partition("::")[0]).is_file()] == []


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_capabilities_are_found_by_doing() -> None:
    found = capabilities()
    assert list(found) == list(costs())
    assert found["mptcp"] or not found["mptcp_fast_open"]


def test_junit_file_has_every_outcome(tmp_path: Path) -> None:
    outcomes = [Outcome(**outcome(kind)) for kind in ("passed", "failed", "skipped")]  # type: ignore[arg-type]
    write_junit(tmp_path / "out.xml", "linux-6.1", outcomes)
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }
    assert [case[0].text for case in suite if len(case)] == ["why?", "why?"]
