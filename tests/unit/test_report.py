# SPDX-License-Identifier: Apache-2.0
"""What of a pass the world is told: everything new, and nothing twice."""

from __future__ import annotations

from cgnetd.errors import KernelError, Problem
from cgnetd.service.events import Kind, Message
from cgnetd.service.report import Announcer, PassReport

PROBLEM = Problem("/p/a.yaml", 3, 1, "spec", "wrong")


def told(announcer: Announcer, report: PassReport) -> list[Kind]:
    return [found.kind for found in announcer.messages(report)]


def only(report: PassReport) -> Message:
    (found,) = Announcer().messages(report)
    return found


def test_quiet_pass_says_nothing() -> None:
    assert told(Announcer(), PassReport(steps=("label every cgroup",))) == []


def test_loaded_and_adopted_generations_are_told() -> None:
    loaded = only(PassReport(loaded=3, policies=1))
    assert (loaded.kind, loaded.text) == (Kind.POLICY_LOADED, "generation 3 is in force: 1 policy")
    adopted = only(PassReport(adopted=3, policies=2))
    assert adopted.text == "generation 3 was in force already, adopted: 2 policies"
    assert adopted.fields["adopted"] is True


def test_rejection_is_told_once_until_it_changes() -> None:
    announcer = Announcer()
    rejected = PassReport(problems=(PROBLEM,))
    assert told(announcer, rejected) == [Kind.POLICY_REJECTED]
    assert told(announcer, rejected) == []
    other = PassReport(problems=(PROBLEM, Problem("/p/b.yaml", 1, 1, "", "worse")))
    assert told(announcer, other) == [Kind.POLICY_REJECTED]
    assert told(announcer, PassReport()) == []
    assert told(announcer, rejected) == [Kind.POLICY_REJECTED]


def test_rejection_carries_every_problem_and_shows_a_few() -> None:
    problems = tuple(Problem("/p/a.yaml", line, 1, "", "wrong") for line in range(1, 9))
    found = only(PassReport(problems=problems))
    assert len(found.fields["problems"]) == 8
    assert found.text.endswith("/p/a.yaml:5:1: wrong; and 3 more")


def test_file_being_written_is_no_rejection() -> None:
    announcer = Announcer()
    assert told(announcer, PassReport(problems=(PROBLEM,), writing=("/p/a.yaml",))) == []
    assert told(announcer, PassReport()) == []


def test_refused_step_is_told_once_until_it_changes() -> None:
    announcer = Announcer()
    failed = PassReport(error=KernelError("attach connect4: no"))
    assert [told(announcer, failed), told(announcer, failed)] == [[Kind.RECONCILE_FAILED], []]
    assert told(announcer, PassReport(error=KernelError("other"))) == [Kind.RECONCILE_FAILED]
    assert told(announcer, PassReport()) == []
    assert told(announcer, failed) == [Kind.RECONCILE_FAILED]


def test_every_repair_is_told() -> None:
    announcer = Announcer()
    report = PassReport(repaired=("attach connect4, which was missing",))
    assert [told(announcer, report), told(announcer, report)] == [[Kind.DRIFT_REPAIRED]] * 2


def test_degradation_is_told_once() -> None:
    announcer = Announcer()
    report = PassReport(degraded=(PROBLEM,))
    assert [told(announcer, report), told(announcer, report)] == [[Kind.DEGRADED], []]
