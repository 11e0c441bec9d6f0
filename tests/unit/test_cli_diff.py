# SPDX-License-Identifier: Apache-2.0
"""What people read of an answer of `diff`, and how it exits."""

from __future__ import annotations

from typing import Any

import pytest

from cgnetd.cli.answer import Style
from cgnetd.cli.diff import differs, lines

NOTHING: dict[str, Any] = {"added": [], "removed": [], "changed": []}
SAME: dict[str, Any] = {
    "rules": NOTHING,
    "policies": NOTHING,
    "services": NOTHING,
    "verdicts": {"checked": 0, "unjudged": 0, "changed": []},
    "problems": [],
}
RULE = {"policy": "web", "rule": "api", "file": "w.yaml", "line": 7, "action": "redirect", "to": "127.0.0.1:8080"}
CALL = {
    "subject": "web.service",
    "hook": "connect",
    "protocol": "tcp",
    "to_address": "192.0.2.10",
    "to_port": 80,
    "calls": 17,
    "from": "allow",
    "to": "redirect",
    "from_place": "",
    "to_place": "127.0.0.1:8080",
    "policy": "web",
    "rule": "api",
    "file": "w.yaml",
    "line": 7,
}


def text(found: dict[str, Any], *, colour: bool = False) -> str:
    return "\n".join(lines(SAME | found, Style(colour)))


def test_nothing_is_said_to_be_nothing() -> None:
    assert not differs(SAME)
    assert text({}) == "a reload would change nothing"


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("rules", {"added": [RULE]}, "+ web/api: redirect to 127.0.0.1:8080  w.yaml:7"),
        (
            "rules",
            {"removed": [RULE | {"calls": 1}]},
            "- web/api: redirect to 127.0.0.1:8080  1 call decided  w.yaml:7",
        ),
        (
            "rules",
            {
                "changed": [
                    RULE | {"what": ["action", "order"], "calls": 5, "before": RULE | {"action": "deny", "to": ""}}
                ]
            },
            "~ web/api: redirect to 127.0.0.1:8080 (action, order; was deny)  5 calls decided  w.yaml:7",
        ),
        (
            "rules",
            {"changed": [RULE | {"what": ["match"], "calls": 0, "before": RULE}]},
            "~ web/api: redirect to 127.0.0.1:8080 (match)  w.yaml:7",
        ),
        (
            "rules",
            {"added": [RULE | {"action": "allow", "to": "source 10.0.0.7"}]},
            "+ web/api: allow, source 10.0.0.7  w.yaml:7",
        ),
        (
            "policies",
            {
                "added": [
                    {"policy": "web", "tier": "admin", "priority": 5, "mode": "audit", "file": "w.yaml", "line": 1}
                ]
            },
            "+ web: admin 5 audit  w.yaml:1",
        ),
        (
            "services",
            {
                "changed": [
                    {
                        "service": "db",
                        "what": ["backends"],
                        "backends": {"added": ["10.0.0.3"], "removed": ["10.0.0.1:1"]},
                    }
                ]
            },
            "~ db (backends)\n      - 10.0.0.1:1\n      + 10.0.0.3",
        ),
    ],
)
def test_change_is_told_with_its_place(kind: str, change: dict[str, Any], said: str) -> None:
    found = {kind: NOTHING | change}
    assert differs(SAME | found)
    assert text(found) == f"{kind}\n  {said}"


def test_calls_that_would_get_another_verdict_are_told() -> None:
    found = {"verdicts": {"checked": 40, "unjudged": 2, "changed": [CALL]}}
    assert differs(SAME | found)
    assert text(found).splitlines() == [
        "of the calls told lately, 40 judged again, 2 could not be",
        "  allow -> redirect to 127.0.0.1:8080  web.service connect tcp 192.0.2.10:80  17 calls, by web/api  w.yaml:7",
    ]


def test_calls_that_all_stay_are_told() -> None:
    assert "none would get another verdict" in text({"verdicts": {"checked": 1, "changed": []}})


def test_call_by_no_policy_names_the_built_in_rule() -> None:
    unix = {"name": "@bus", "to_address": "", "to": "allow", "to_place": "", "policy": "", "rule": "default_action"}
    found = text({"verdicts": {"checked": 1, "changed": [CALL | unix | {"from": "deny"}]}})
    assert "deny -> allow  web.service connect tcp @bus  17 calls, by default_action" in found


def test_files_with_errors_are_told_and_nothing_else() -> None:
    problem = {"file": "/p/x.yaml", "line": 1, "column": 2, "key": "spec", "message": "wrong"}
    assert text({"problems": [problem], "rules": NOTHING | {"added": [RULE]}}).splitlines() == [
        "error: /p/x.yaml:1:2: spec: wrong",
        "the files have errors: a reload would change nothing",
    ]


def test_colour_is_there_on_terminals_only() -> None:
    found = {"rules": NOTHING | {"added": [RULE], "removed": [RULE]}}
    assert "\x1b[32m+ web/api" in text(found, colour=True)
    assert "\x1b[31m- web/api" in text(found, colour=True)
    assert "\x1b" not in text(found)
