# SPDX-License-Identifier: Apache-2.0
"""Problems as the control socket and --json spell them, and as people read them.

Pure. Must not know where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cgnetd.errors import CgnetdError, PolicyError, Problem


class DaemonError(CgnetdError):
    """An error that the daemon reported; it exits as the daemon said."""

    def __init__(self, message: str, exit_code: int, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.problems = problems


def problem_of(data: Mapping[str, Any]) -> Problem:
    """A problem as the control socket spells it, as a value; what is missing is empty."""
    return Problem(
        str(data.get("file", "")),
        int(data.get("line", 0)),
        int(data.get("column", 0)),
        str(data.get("key", "")),
        str(data.get("message", "")),
    )


def problem_texts(items: Iterable[Any] | None) -> tuple[str, ...]:
    """One line for each problem of an answer of the daemon; a plain text is taken as it is."""
    return tuple(str(problem_of(item)) if isinstance(item, Mapping) else str(item) for item in items or ())


def error_data(error: CgnetdError) -> dict[str, Any]:
    """An error as --json shows it; the same keys as on the control socket."""
    problems = error.problems if isinstance(error, DaemonError | PolicyError) else ()
    return {
        "exit_code": error.exit_code,
        "message": str(error),
        "problems": [problem._asdict() for problem in problems],
    }
