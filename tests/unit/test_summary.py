# SPDX-License-Identifier: Apache-2.0
"""The state of the daemon in one line."""

from __future__ import annotations

import pytest

from cgnetd.errors import Problem
from cgnetd.service.summary import State, summary

ENFORCING = State(generation=3, policies=2, governed=14)
HEAD = "enforcing generation 3, 2 policies, 14 cgroups governed"


def problem(file: str, line: int) -> Problem:
    return Problem(file, line, 1, "spec", "wrong")


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (ENFORCING, HEAD),
        (State(generation=1, policies=1, governed=1), "enforcing generation 1, 1 policy, 1 cgroup governed"),
        (State(reasons=("there are no policies",)), "not enforcing: there are no policies"),
        (
            State(3, 2, 14, rejected=(problem("/p/a.yaml", 6), problem("/p/a.yaml", 6))),
            f"{HEAD}; rejected: /p/a.yaml:6",
        ),
        (
            State(3, 2, 14, rejected=tuple(problem("/p/a.yaml", n) for n in range(1, 5))),
            f"{HEAD}; rejected: /p/a.yaml:1 and 3 more",
        ),
        (
            State(3, 2, 14, settings=("/e/c.yaml:2:9: audit.windw: unknown key, accepted are: x",)),
            f"{HEAD}; settings rejected: /e/c.yaml:2",
        ),
        (
            State(3, 2, 14, settings=("/e/c.yaml:0:0: cannot be read: Permission denied",)),
            f"{HEAD}; settings rejected: /e/c.yaml",
        ),
        (State(3, 2, 14, rejected=(problem("/p", 0),)), f"{HEAD}; rejected: /p"),
        (State(3, 2, 14, refused="load program: no"), f"{HEAD}; the kernel refused: load program: no"),
        (State(reasons=("load program: no",), refused="load program: no"), "not enforcing: load program: no"),
        (State(3, 2, 14, 2), f"{HEAD}; everything denied in 2 cgroups, too many policies"),
        (State(3, 2, 14, degraded=(problem("/p/t.yaml", 1),)), f"{HEAD}; degraded: /p/t.yaml:1"),
        (State(3, 2, 14, dead=("db 10.0.0.1:1", "db 10.0.0.2:1")), f"{HEAD}; dead: db 10.0.0.1:1 and 1 more"),
        (State(3, 2, 14, waiting=("waiting for device wg0",)), f"{HEAD}; waiting for device wg0"),
    ],
)
def test_each_state_has_its_line(state: State, line: str) -> None:
    assert summary(state) == line


def test_nothing_in_the_line_can_end_it_or_fail_to_be_sent() -> None:
    line = summary(State(3, 2, 14, rejected=(problem("/p/\n\udcff\x1b[31mSTOPPING=1.yaml", 1),)))
    assert line == f"{HEAD}; rejected: /p/???[31mSTOPPING=1.yaml:1"
    assert line.encode()
