# SPDX-License-Identifier: Apache-2.0
"""Every kind of mistake gives its message at its place, all of them in one run, and no policy set.

The files in mistakes/ say themselves what is expected: `# expect: [FILE:]LINE:COLUMN: KEY: MESSAGE`, KEY `-` for none.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cgnetd.errors import Problem
from cgnetd.policy.load import Source, parse

MISTAKES = Path(__file__).parent / "mistakes"
FILES = sorted(MISTAKES.glob("*.yaml"))
EXPECTATION = re.compile(r"# expect: (?:([a-z0-9.]+):)?(\d+):(\d+): (\S+): (.*)")


def read_set(path: str) -> bytes:
    return (MISTAKES / "sets" / Path(path).name).read_bytes()


def find_user(name: str) -> int:
    raise KeyError(name)


def expected(file: Path) -> list[Problem]:
    found = EXPECTATION.findall(file.read_text(encoding="utf-8", errors="replace"))
    return [
        Problem(f"/sets/{other}" if other else file.name, int(line), int(column), "" if key == "-" else key, message)
        for other, line, column, key, message in found
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_mistakes_are_told_with_place_and_reason(file: Path) -> None:
    result = parse([Source(file.name, file.read_bytes())], read_set=read_set, find_user=find_user)
    assert list(result.problems) == expected(file)
    assert result.problems
    assert result.policy_set is None


def test_mistakes_of_all_files_are_told_in_one_run() -> None:
    sources = [Source(file.name, file.read_bytes()) for file in FILES]
    told = {problem.file for problem in parse(sources, read_set=read_set, find_user=find_user).problems}
    assert {file.name for file in FILES} <= told
