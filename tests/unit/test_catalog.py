# SPDX-License-Identifier: Apache-2.0
"""The journal's catalog explains every kind of record, with fields that records of that kind have."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.service.events import FlowEvent, Kind, RuleName
from cgnetd.service.journal import fields_of
from unit.test_events import EVENT, REDIRECTED

TOP = Path(__file__).parents[2]
TEXT = (TOP / "packaging/catalog/cgnetd.catalog").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^-- ([0-9a-f]{32})\n(.*?)(?=^-- [0-9a-f]{32}$|\Z)", TEXT, re.MULTILINE | re.DOTALL))
DOCUMENT = (TOP / "docs/events.md").read_text(encoding="utf-8")

ALLOWED = RuleName("", "default_action", "", 0)
FLOWS = [
    EVENT,
    dataclasses.replace(EVENT, rule=RuleName("", "unlabelled", "", 0)),
    dataclasses.replace(EVENT, reason="no backend of service db is alive"),
    dataclasses.replace(EVENT, denied=False, rule=ALLOWED, errno=""),
    REDIRECTED,
    dataclasses.replace(REDIRECTED, redirected=False, rule=ALLOWED),
    dataclasses.replace(EVENT, denied=False, shadow_denied=False, errno=""),
]
MESSAGES = [kind for kind in Kind if kind not in {event.kind for event in FLOWS}]


def used(kind: Kind) -> set[str]:
    """The fields that the explanation of a kind is filled in with."""
    return set(re.findall(r"@([A-Z0-9_]+)@", ENTRIES[kind.message_id]))


def test_every_kind_has_one_entry_and_every_entry_a_kind() -> None:
    ids = re.findall(r"^-- (\S+)$", TEXT, re.MULTILINE)
    assert sorted(ids) == sorted(kind.message_id for kind in Kind)
    assert sorted(ENTRIES) == sorted(ids)


def test_every_kind_of_flow_is_among_those_tested_here() -> None:
    assert len({event.kind for event in FLOWS}) == len(FLOWS)
    assert [kind for kind in MESSAGES if kind.label.startswith(("deny", "shadow"))] == []


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.label)
def test_entry_has_a_subject_and_says_where_to_read_on(kind: Kind) -> None:
    head, _, body = ENTRIES[kind.message_id].partition("\n\n")
    assert re.fullmatch(r"Subject: .+\nDefined-By: cgnetd\nDocumentation: man:.+", head)
    assert body.strip()


@pytest.mark.parametrize("event", FLOWS, ids=lambda event: event.kind.label)
def test_explanation_of_a_flow_uses_fields_that_it_always_has(event: FlowEvent) -> None:
    bare = dataclasses.replace(event, remote_address="", remote_port=0, unit="", collected=True, count=1)
    assert used(event.kind) <= fields_of(bare).keys()


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.label)
def test_explanation_of_a_message_uses_fields_that_its_kind_has(kind: Kind) -> None:
    assert used(kind) <= {f"CGNETD_{name.upper()}" for name in kind.fields}


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.label)
def test_document_tells_id_and_priority_of_every_kind(kind: Kind) -> None:
    name = re.escape(kind.label)
    row = re.search(rf"^\| `{name}`(?: \(flow\))? \| (\w+) \| ([0-9a-f]{{32}}) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert row is not None
    assert (row.group(1), row.group(2)) == (kind.priority.name.lower(), kind.message_id)
    assert [field for field in kind.fields if f"`{field}`" not in row.group(3)] == []


def made() -> Iterator[tuple[str, str, set[str]]]:
    """File, kind and fields of every message that the daemon makes by `message(Kind.X, text, field=...)`."""
    for path in sorted((TOP / "daemon/cgnetd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "message":
                continue
            if node.args and isinstance(node.args[0], ast.Attribute):
                yield path.name, node.args[0].attr, {word.arg for word in node.keywords if word.arg is not None}


def test_messages_have_no_fields_that_their_kind_does_not_tell_of() -> None:
    found = list(made())
    assert len(found) >= 15
    assert [one for one in found if not one[2] <= Kind[one[1]].fields] == []
