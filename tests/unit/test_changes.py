# SPDX-License-Identifier: Apache-2.0
"""What a reload would change: rules, policies and services, and the verdicts of calls that were seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from policy_text import parse_good

from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.policy.types import Action, Flow, Hook, Protocol, SocketType
from cgnetd.service.changes import Side, policy_changes, rule_changes, service_changes
from cgnetd.service.events import FlowEvent, RuleName
from cgnetd.service.fingerprint import fingerprints
from cgnetd.service.labelling import label_at
from cgnetd.service.replay import Judge, compare, flow_of

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  subject: {{cgroups: ["{subject}"]}}
  priority: {priority}
  egress: [{rules}]
"""
SERVICE = """\
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec: {{addresses: [192.0.2.9], ports: [{{port: 80}}], backends: [{backends}]}}
"""


def policy(*rules: str, name: str = "app", subject: str = "/app", priority: int = 500) -> str:
    made = ", ".join("{" + rule + "}" for rule in rules)
    return POLICY.format(name=name, subject=subject, priority=priority, rules=made)


def service(*backends: str) -> str:
    return SERVICE.format(backends=", ".join("{" + backend + "}" for backend in backends))


def side(text: str) -> Side:
    found = parse_good(text)
    index = compile_image(found, default_action=Action.ALLOW, generation=1).index
    return Side(index, fingerprints(found))


def judge(text: str) -> Judge:
    image = compile_image(parse_good(text), default_action=Action.ALLOW, generation=1)
    reader = ImageReader(image.cells)
    return Judge(reader, image.index, lambda path: label_at(reader, path))


def rules_of(before: str, after: str) -> dict[str, list[Any]]:
    """Names, and for changed ones what about them."""
    found = rule_changes(side(before), side(after))
    named: dict[str, list[Any]] = {kind: [rule["rule"] for rule in found[kind]] for kind in ("added", "removed")}
    return {**named, "changed": [(rule["rule"], rule["what"]) for rule in found["changed"]]}


A, B, C = "name: a, action: allow, ports: [1]", "name: b, action: deny", "name: c, action: allow, ports: [3]"


def test_same_rules_in_other_lines_are_no_change() -> None:
    assert rules_of(policy(A, B), "# a comment\n" + policy(A, B)) == {"added": [], "removed": [], "changed": []}


def test_rules_that_come_and_go_are_told_with_place_and_counts() -> None:
    assert rules_of(policy(A, B), policy(B, C)) == {"added": ["c"], "removed": ["a"], "changed": []}
    found = rule_changes(side(policy(A, B)), side(policy(B, C)), lambda ref: ref.rule_id * 10)
    (removed,) = found["removed"]
    assert removed == {
        "policy": "app",
        "rule": "a",
        "file": "a.yaml",
        "line": 7,
        "action": "allow",
        "to": "",
        "calls": 40,
    }


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (A, A.replace("[1]", "[2]"), ["match"]),
        (A, A.replace("allow", "deny"), ["action", "errno", "log"]),
        (A, f"{A}, to: [10.0.0.0/8]", ["match"]),
        (A, f"{A}, log: true", ["log"]),
        (B, f"{B}, errno: EACCES", ["errno"]),
        (A, f"{A}, source: {{address: 10.0.0.7}}, to: [10.0.0.0/8]", ["to", "match"]),
    ],
)
def test_changed_rule_says_what_is_another(before: str, after: str, what: list[str]) -> None:
    name = before[6]
    assert rules_of(policy(before), policy(after))["changed"] == [(name, what)]


def test_changed_rule_tells_what_it_was() -> None:
    target = "name: a, action: redirect, to: [192.0.2.1], redirect: {to: ['127.0.0.1:%d']}"
    (changed,) = rule_changes(side(policy(target % 1)), side(policy(target % 2)), lambda _: 7)["changed"]
    assert (changed["action"], changed["to"], changed["calls"]) == ("redirect", "127.0.0.1:2", 7)
    assert changed["before"]["to"] == "127.0.0.1:1"


def test_moved_rule_is_the_only_one_that_changed() -> None:
    assert rules_of(policy(A, B, C), policy(B, C, A))["changed"] == [("a", ["order"])]
    assert rules_of(policy(A, B), policy(B, A))["changed"] in ([("a", ["order"])], [("b", ["order"])])


def test_what_nobody_knows_the_match_of_is_compared_by_the_rest() -> None:
    unknown = dataclasses.replace(side(policy(A)), prints=None)
    assert rule_changes(unknown, side(policy(A.replace("[1]", "[2]"))))["changed"] == []
    assert rule_changes(unknown, side(policy(A.replace("allow", "deny"))))["changed"] != []
    assert policy_changes(unknown, side(policy(A, subject="/b")))["changed"] == []


def test_policies_that_come_go_and_change_are_told() -> None:
    before = policy(A) + "---\n" + policy(A, name="gone")
    after = policy(A, subject="/b", priority=7) + "---\n" + policy(A, name="new")
    found = policy_changes(side(before), side(after))
    assert [one["policy"] for one in found["added"]] == ["new"]
    assert [one["policy"] for one in found["removed"]] == ["gone"]
    (changed,) = found["changed"]
    assert (changed["policy"], changed["what"], changed["mode"]) == ("app", ["priority", "subject"], "enforce")


def test_services_tell_their_backends() -> None:
    used = policy("name: a, action: redirect, to: ['service:db']")
    before = used + service("address: 10.0.0.1", "address: 10.0.0.2, port: 8080", "address: 10.0.0.4")
    after = used + service("address: 10.0.0.2, port: 8080, weight: 3", "address: 10.0.0.3", "address: 10.0.0.4")
    (changed,) = service_changes(side(before), side(after))["changed"]
    assert changed == {
        "service": "db",
        "what": ["backends"],
        "backends": {"added": ["10.0.0.3"], "removed": ["10.0.0.1"], "changed": ["10.0.0.2:8080"]},
    }
    assert service_changes(side(before), side(before)) == {"added": [], "removed": [], "changed": []}
    assert service_changes(side(policy(A)), side(before))["added"] == [{"service": "db"}]


RULE = RuleName("app", "a", "a.yaml", 7)
EVENT = FlowEvent(
    time_ns=1,
    denied=True,
    shadow_denied=True,
    hook="connect",
    protocol="tcp",
    family=4,
    local_address="0.0.0.0",
    local_port=0,
    remote_address="192.0.2.1",
    remote_port=80,
    errno="EPERM",
    rule=RULE,
    shadow_rule=RULE,
    generation=1,
    cgroup_id=9,
    cgroup="/app",
    unit="",
    user_unit="",
    decided_by="task",
    pid=1,
    comm="x",
    uid=0,
    count=3,
    first_ns=1,
    last_ns=1,
)


def test_seen_calls_that_would_get_another_verdict_are_counted() -> None:
    other = dataclasses.replace(EVENT, remote_port=1, count=5)
    found = compare([EVENT, other, EVENT], judge(policy(B)), judge(policy(A, B)))
    assert (found["checked"], found["unjudged"]) == (11, 0)
    (changed,) = found["changed"]
    assert changed == {
        "subject": "/app",
        "cgroup": "/app",
        "hook": "connect",
        "protocol": "tcp",
        "to_address": "192.0.2.1",
        "to_port": 1,
        "name": "",
        "socket_type": "",
        "calls": 5,
        "from": "deny",
        "to": "allow",
        "from_place": "",
        "to_place": "",
        "policy": "app",
        "rule": "a",
        "file": "a.yaml",
        "line": 7,
    }


def test_another_target_is_another_verdict_and_another_backend_is_none() -> None:
    target = "name: a, action: redirect, to: [192.0.2.1], redirect: {to: ['127.0.0.1:%d']}"
    (changed,) = compare([EVENT], judge(policy(target % 1)), judge(policy(target % 2)))["changed"]
    assert (changed["from"], changed["to"]) == ("redirect", "redirect")
    assert (changed["from_place"], changed["to_place"]) == ("127.0.0.1:1", "127.0.0.1:2")
    used = policy("name: a, action: redirect, to: [192.0.2.1], redirect: {to: ['service:db']}")
    backends = [used + service(f"address: 10.0.0.{number}") for number in (1, 2)]
    assert compare([EVENT], *map(judge, backends))["changed"] == []


def test_calls_of_which_too_little_is_known_are_not_judged() -> None:
    events = [
        dataclasses.replace(EVENT, collected=True, remote_address=""),
        dataclasses.replace(EVENT, cgroup=""),
        dataclasses.replace(EVENT, protocol="unix", family=1, remote_address="", name="/run/\\xff"),
    ]
    assert compare(events, judge(policy(B)), judge(policy(A))) == {"checked": 0, "unjudged": 9, "changed": []}


@pytest.mark.parametrize(
    ("event", "flow"),
    [
        ({}, Flow(Hook.CONNECT, Protocol.TCP, 4, 0xC0000201, 80)),
        (
            {
                "hook": "bind",
                "protocol": "udp",
                "remote_address": "",
                "local_address": "::1",
                "local_port": 9,
                "family": 6,
            },
            Flow(Hook.BIND, Protocol.UDP, 6, 1, 9),
        ),
        (
            {"hook": "create", "socket_type": "raw", "family": 6},
            Flow(Hook.CREATE, Protocol.TCP, 6, 0, 0, type=SocketType.RAW),
        ),
        ({"hook": "socket", "protocol": "raw"}, Flow(Hook.SOCKET, Protocol.OTHER, 4, 0, 0, raw=True)),
        (
            {"hook": "sendmsg", "protocol": "unix", "family": 1, "name": "@a"},
            Flow(Hook.SENDMSG, Protocol.OTHER, 1, 0, 0, name=b"\0a"),
        ),
        (
            {"protocol": "unix", "family": 1, "name": "/run/ä"},
            Flow(Hook.CONNECT, Protocol.OTHER, 1, 0, 0, name="/run/ä".encode()),
        ),
        ({"protocol": "77"}, Flow(Hook.CONNECT, Protocol.OTHER, 4, 0xC0000201, 80)),
        ({"hook": "9"}, None),
    ],
)
def test_event_is_a_flow_again(event: dict[str, Any], flow: Flow | None) -> None:
    assert flow_of(dataclasses.replace(EVENT, **event)) == flow
