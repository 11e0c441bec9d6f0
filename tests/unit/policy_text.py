# SPDX-License-Identifier: Apache-2.0
"""Parsing of policy texts in tests: files are given by name, users are fixed."""

from __future__ import annotations

from cgnetd.policy.load import ParseResult, Source, parse
from cgnetd.policy.types import Policy, PolicySet

USERS = {"www-data": 33, "alice": 1001, "bob": 1002}
HEAD = "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {name: a}\n"


def parse_texts(*texts: str | bytes, files: dict[str, bytes] | None = None) -> ParseResult:
    """The result for texts as files a.yaml, b.yaml, ...; set files come from `files`."""

    def read_set(path: str) -> bytes:
        if files is None or path not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path]

    sources = [
        Source(f"{chr(ord('a') + number)}.yaml", text.encode() if isinstance(text, str) else text)
        for number, text in enumerate(texts)
    ]
    return parse(sources, read_set=read_set, find_user=USERS.__getitem__)


def parse_good(*texts: str, files: dict[str, bytes] | None = None) -> PolicySet:
    result = parse_texts(*texts, files=files)
    assert result.problems == ()
    assert result.policy_set is not None
    return result.policy_set


def policy(spec: str, files: dict[str, bytes] | None = None, sets: str = "") -> Policy:
    """The policy with this spec (indented by two blanks, without its subject)."""
    text = f"{HEAD}spec:\n  subject: {{units: [a.service]}}\n{spec}\n{sets}"
    return parse_good(text, files=files).policies[0]


def messages(*texts: str | bytes, files: dict[str, bytes] | None = None) -> list[str]:
    return [str(problem) for problem in parse_texts(*texts, files=files).problems]
