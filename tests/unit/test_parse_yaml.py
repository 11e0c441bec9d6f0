# SPDX-License-Identifier: Apache-2.0
"""Text to documents: what is skipped, what is bounded, and that no input at all makes parsing raise."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policy_text import HEAD, messages, parse_good, parse_texts

from cgnetd.policy import models
from cgnetd.policy.compose import compose
from cgnetd.policy.scalars import Trap, resolve

GOOD = f"{HEAD}spec: {{subject: {{units: [x]}}, default: {{bind: deny}}}}\n"


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "---\n---\n", "--- ~\n", "\ufeff"])
def test_empty_documents_are_skipped(text: str) -> None:
    assert parse_good(text).policies == ()


def test_documents_of_one_file_are_all_read() -> None:
    second = GOOD.replace("name: a", "name: b")
    assert len(parse_good(f"\ufeff---\n{GOOD}---\n---\n{second}...\n").policies) == 2
    assert len(parse_good(GOOD.replace("\n", "\r\n")).policies) == 1


def test_anchors_are_expanded() -> None:
    text = f"{HEAD}spec:\n  subject: {{units: [x]}}\n  egress:\n    - {{action: deny, ports: &p [1, 2]}}\n"
    rules = parse_good(f"{text}    - {{action: deny, protocols: [tcp], ports: *p}}\n").policies[0].egress
    assert rules[0].ports == rules[1].ports == ((1, 2),)


def test_reading_goes_on_after_a_syntax_error() -> None:
    found, problems = compose("f", b"a: [\n---\nb: 1\n---\nc: }\n---\nd: 1\ne: 2\n")
    assert [document.data for document in found] == [{"b": 1}, {"d": 1, "e": 2}]
    assert [problem.line for problem in problems] == [2, 5]
    assert found[1].place(("e",)) == (8, 4)
    assert found[1].place(("e",), key=True) == (8, 1)


def test_broken_documents_are_bounded() -> None:
    _, problems = compose("f", b"---\na: }\n" * 10_000)
    assert 1 <= len(problems) <= 50


def test_many_aliases_are_refused_in_no_time() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert ["stand for more than" in message for message in messages("\n".join(lines))] == [True]


def test_deep_nesting_is_refused() -> None:
    assert ["is nested more than 32 deep" in message for message in messages("[" * 100_000)] == [True]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("tcp", "tcp"),
        ("10.0.0.1", "10.0.0.1"),
        ("8000-8099", "8000-8099"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("-5", -5),
        ("0", 0),
        ("443", 443),
        ("true", True),
        ("", None),
        ("nodes", "nodes"),
        ("no", Trap("no", "a boolean")),
        ("22:22", Trap("22:22", "a number in base 60")),
        ("1:2:3:4:5:6:7:8", Trap("1:2:3:4:5:6:7:8", "a number in base 60")),
        ("0644", Trap("0644", "an octal number")),
        ("0o17", Trap("0o17", "an octal number")),
        ("0x1F", Trap("0x1F", "a hexadecimal number")),
        ("0b1", Trap("0b1", "a binary number")),
        ("2030-01-01", Trap("2030-01-01", "a date")),
        (".5", Trap(".5", "a number")),
        ("9" * 5000, Trap("9" * 5000, "a number of more than 18 digits")),
    ],
)
def test_unquoted_words(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_words_are_text() -> None:
    found, problems = compose("f", b'["no", \'443\', "", |\n 5\n]'.replace(b", |\n 5\n", b""))
    assert problems == []
    assert found[0].data == ["no", "443", ""]


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xfe\x00")
@example(b"\x00")
@example(b"? ? ?")
@example(b"&a : *a")
@example(b"%YAML 9.9\n---\n")
def test_no_bytes_make_parsing_raise(data: bytes) -> None:
    result = parse_texts(data)
    assert (result.policy_set is None) == bool(result.problems)


_MODELS = (models.PolicySpec, models.SubjectPart, models.EgressRule, models.BindRule, models.AddressSetSpec)
_KEYS = sorted({field.alias or name for model in _MODELS for name, field in model.model_fields.items()})
_VALUE_WORDS = [
    "a",
    "deny",
    "tcp",
    "any",
    "80",
    "no",
    "[]",
    "{}",
    "~",
    "*",
    "&",
    "!",
    "set:a",
    "10.0.0.0/8",
    "ephemeral",
]
_WORDS = st.sampled_from(_KEYS + _VALUE_WORDS)
_VALUES = st.recursive(
    _WORDS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_WORDS, below, max_size=5),
    max_leaves=25,
)


def _flow(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(below)}' for key, below in value.items())}}}"
    return str(value)


@settings(deadline=None)
@given(_VALUES)
def test_no_document_of_known_words_makes_parsing_raise(spec: object) -> None:
    for kind in ("Policy", "AddressSet"):
        text = f"apiVersion: cgnetd/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {_flow(spec)}\n"
        result = parse_texts(text, files={})
        assert (result.policy_set is None) == bool(result.problems)
