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


def test_key_is_told_without_what_steers_a_terminal_and_not_at_any_length() -> None:
    long = "k" * 100
    text = f'{{"\\e[31m": 1, kind: AddressSet, apiVersion: cgnetd/v1, metadata: {{name: a}}, spec: {{{long}: 1}}}}'
    told = parse([Source("a.yaml", text.encode())], read_set=read_set, find_user=find_user).problems
    assert [problem.key for problem in told] == ["\\x1b[31m", "spec." + "k" * 77 + "..."]


def test_more_mistakes_than_anybody_reads_are_counted() -> None:
    text = "--- 1\n" * 10_005
    told = parse([Source("a.yaml", text.encode())], read_set=read_set, find_user=find_user).problems
    assert len(told) == 10_001
    assert str(told[-1]) == "a.yaml:10001:5: and 5 more mistakes from here on"
    assert told == tuple(sorted(told))


def test_mistakes_of_all_files_are_told_in_one_run() -> None:
    sources = [Source(file.name, file.read_bytes()) for file in FILES]
    told = {problem.file for problem in parse(sources, read_set=read_set, find_user=find_user).problems}
    assert {file.name for file in FILES} <= told
