# SPDX-License-Identifier: Apache-2.0
"""The shipped examples are valid, each alone and all together; the shipped schema is that of the models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cgnetd.policy.load import ParseResult, Source, parse
from cgnetd.policy.schema import schema_text

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))
USERS = {"alice": 1001, "bob": 1002}


def parse_examples(files: list[Path]) -> ParseResult:
    def read_set(path: str) -> bytes:
        return (CONFIG / "examples" / "sets" / Path(path).name).read_bytes()

    sources = [Source(str(file.relative_to(CONFIG)), file.read_bytes()) for file in files]
    return parse(sources, read_set=read_set, find_user=USERS.__getitem__)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_valid(file: Path) -> None:
    result = parse_examples([file])
    assert (result.problems, result.warnings) == ((), ())
    assert result.policy_set is not None
    assert result.policy_set.policies


def test_examples_are_valid_together() -> None:
    assert parse_examples(EXAMPLES).problems == ()


def test_schema_is_current() -> None:
    shipped = (CONFIG / "policy.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == json.loads(schema_text()), "run: .venv/bin/python config/make_schema.py"


def test_documents_in_the_manual_are_valid() -> None:
    text = (CONFIG.parent / "docs" / "policy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert parse([Source("policy.md", block.encode())], read_set=lambda _: b"", find_user=len).problems == ()
