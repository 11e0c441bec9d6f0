# SPDX-License-Identifier: Apache-2.0
"""What a pass did, as a value, and what of it the world is told.

Must not know how a pass is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cgnetd.errors import CgnetdError, Problem
from cgnetd.service.clock import rfc3339
from cgnetd.service.control import problem_data
from cgnetd.service.events import Kind, Message

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PassReport:
    """One pass. `steps` and `repaired` are sentences; `loaded` is the number of a generation that this pass put in
    force, 0 if it put none; `adopted` likewise of one that a starting daemon found in force."""

    time_ns: int = 0  # since 1970, when it began
    duration_ns: int = 0
    steps: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    loaded: int = 0
    adopted: int = 0
    policies: int = 0  # in force after the pass
    problems: tuple[Problem, ...] = ()  # why the files as they are now are not in force
    warnings: tuple[Problem, ...] = ()
    degraded: tuple[Problem, ...] = ()
    error: CgnetdError | None = None  # what the kernel refused
    writing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "time": rfc3339(self.time_ns),
            "duration_ms": round(self.duration_ns / 1e6, 3),
            "steps": list(self.steps),
            "repaired": len(self.repaired),
            "error": str(self.error) if self.error else "",
        }


class Announcer:
    """Turns reports into messages, each trouble once as long as it stays the same."""

    def __init__(self) -> None:
        self._problems: tuple[Problem, ...] = ()
        self._degraded: tuple[Problem, ...] = ()
        self._error = ""

    def messages(self, report: PassReport) -> Iterator[Message]:
        """What is new in a report."""
        yield from self._loaded(report)
        if report.repaired:
            text = f"repaired drift: {'; '.join(few(report.repaired))}"
            yield message(Kind.DRIFT_REPAIRED, text, repaired=list(report.repaired))
        if report.problems != self._problems and report.problems and not report.writing:
            yield self._rejected(report)
        if not report.writing:
            self._problems = report.problems
        if report.degraded != self._degraded and report.degraded:
            text = f"degraded: {'; '.join(few(tuple(str(p) for p in report.degraded)))}"
            yield message(Kind.DEGRADED, text, problems=[problem_data(p) for p in report.degraded])
        self._degraded = report.degraded
        error = str(report.error) if report.error else ""
        if error and error != self._error:
            yield message(Kind.RECONCILE_FAILED, f"the kernel refused a step, tried again later: {error}", error=error)
        self._error = error

    def _loaded(self, report: PassReport) -> Iterator[Message]:
        number = report.loaded or report.adopted
        if not number:
            return
        how = "is in force" if report.loaded else "was in force already, adopted"
        warnings = [problem_data(p) for p in report.warnings]
        yield message(
            Kind.POLICY_LOADED,
            f"generation {number} {how}: {counted(report.policies, 'policy', 'policies')}",
            generation=number,
            adopted=not report.loaded,
            policies=report.policies,
            warnings=warnings,
        )

    def _rejected(self, report: PassReport) -> Message:
        texts = tuple(str(problem) for problem in report.problems)
        return message(
            Kind.POLICY_REJECTED,
            f"policy files rejected, what is in force stays: {'; '.join(few(texts))}",
            problems=[problem_data(p) for p in report.problems],
        )


def message(kind: Kind, text: str, **fields: Any) -> Message:
    """A message of now."""
    return Message(kind, time.time_ns(), text, fields)


def few(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Enough for one line of a log; all of them are in the fields."""
    shown = texts[:_SHOWN]
    rest = len(texts) - len(shown)
    return (*shown, f"and {rest} more") if rest else shown


def counted(number: int, one: str, many: str) -> str:
    """ "1 policy", "2 policies"."""
    return f"{number} {one if number == 1 else many}"
