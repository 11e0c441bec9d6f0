# SPDX-License-Identifier: Apache-2.0
"""What the daemon says becomes of a call: where it goes, by what choice, what is set, and who was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from policy_text import parse_good

from cgnetd.cli.judged import judge_offline
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.errors import UsageError
from cgnetd.policy.types import Action, Flow, Hook, Protocol, SocketType
from cgnetd.service.consequences import Now
from cgnetd.service.explain import explain
from cgnetd.service.labelling import label_at
from cgnetd.service.question import parse_flow

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: guard}
spec:
  subject: {cgroups: ["/app"]}
  tier: admin
  egress:
    - {name: no-nine, action: deny, to: [127.0.0.9, 10.0.0.1], errno: EACCES}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: ["/app"]}
  egress:
    - {name: good, action: redirect, to: [192.0.2.1], redirect: {to: ["127.0.0.1:8080"]}}
    - {name: bad, action: redirect, to: [192.0.2.2], redirect: {to: ["127.0.0.9"]}}
    - {name: db, action: redirect, to: ["service:db"], protocols: [tcp]}
    - {name: six, action: redirect, to: ["2001:db8::/32"], redirect: {to: ["[::1]:8080"]}}
    - {name: wan, action: allow, to: [198.51.100.0/24], source: {address: 10.0.0.7}}
    - {name: bus, action: redirect, unix: [/run/bus], redirect: {unix: "@bus"}}
    - {name: no-unix, action: deny, unix: [any]}
  bind:
    - {name: low, action: rewrite, addresses: [any], ports: [80], rewrite: {port: 8080}, privileged: true}
    - {name: low6, action: rewrite, addresses: ["::"], ports: [81], rewrite: {address: "::1"}}
  socket:
    - {name: no-raw, action: deny, types: [raw]}
    - {name: vpn, action: allow, families: [inet], set: {mark: 0x10, priority: 6, device: wg0}}
  tcp: {congestion: reno, initialWindow: 20}
---
apiVersion: cgnetd/v1
kind: Service
metadata: {name: db}
spec:
  addresses: [192.0.2.9]
  ports: [{port: 5432}]
  backends: [{address: 10.0.0.1}, {address: 10.0.0.2, port: 5433, weight: 3}]
"""
ALL = Now({("db", 4): (0, 1)}, {("db", 4, 1): 0.75}, frozenset({"wg0"}), frozenset({"10.0.0.7"}))
LACKING = Now({("db", 4): ()}, {}, frozenset(), frozenset())


def flow(hook: str, protocol: str = "tcp", **args: Any) -> Flow:
    return parse_flow({"hook": hook, "protocol": protocol, **args})


def explained(asked: Flow, now: Now = ALL, path: str = "/app") -> dict[str, Any]:
    image = compile_image(parse_good(POLICY), default_action=Action.ALLOW, generation=3)
    reader = ImageReader(image.cells)
    return explain(reader, image.index, label_at(reader, path), asked, now)


FLOWS = [
    flow("connect", address="192.0.2.1", port=80),
    flow("connect", address="192.0.2.2", port=80),
    flow("connect", address="192.0.2.9", port=5432),
    flow("sendmsg", "udp", address="2001:db8::1", port=53),
    flow("connect", address="198.51.100.1", port=80),
    flow("connect", "udp", address="203.0.113.1", port=80),
    flow("connect", "unix", name="/run/bus"),
    flow("connect", "unix", name="/run/other"),
    flow("sendmsg", "unix", name="../bus"),
    flow("bind", address="0.0.0.0", port=80),
    flow("bind", address="::", port=80),
    flow("bind", address="::", port=81),
    flow("post_bind", address="10.0.0.1", port=80),
    flow("socket", "raw"),
    flow("create", family=4, type="raw"),
    flow("create", family=4, type="stream"),
    flow("create", family=6, type="dgram"),
]


@pytest.mark.parametrize("asked", FLOWS, ids=lambda asked: f"{asked.hook.value}-{asked.address:x}-{asked.name!r}")
@pytest.mark.parametrize("path", ["/app", "/other"])
def test_daemon_and_files_say_the_same(asked: Flow, path: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY)
    offline = judge_offline([str(tmp_path)], tuple(path.strip("/").split("/")), asked, "allow")
    online = explained(asked, path=path)
    keys = {f"{prefix}{key}" for prefix in ("", "shadow_") for key in ("verdict", "errno", "policy", "rule", "line")}
    keys |= {f"{prefix}new_{key}" for prefix in ("", "shadow_") for key in ("address", "port", "name")}
    assert {key: online[key] for key in keys} == {key: offline[key] for key in keys}
    assert (online["sets"], online["tcp"]) == (offline["sets"], offline["tcp"])
    assert [step["outcome"] for step in online["steps"]] == [step["outcome"] for step in offline["steps"]]
    assert (online["rewriting"] is None) == (offline["rewriting"] is None)
    assert (online["service"] or {}).keys() == (offline["service"] or {}).keys()


def test_redirect_tells_where_the_call_goes_and_who_let_it() -> None:
    found = explained(flow("connect", address="192.0.2.1", port=80))
    assert (found["verdict"], found["rule"], found["errno"], found["reason"]) == ("redirect", "good", "", "")
    assert (found["new_address"], found["new_port"], found["shadow_new_address"]) == ("127.0.0.1", 8080, "127.0.0.1")
    asked = found["rewriting"]["asked"]
    assert [(step["policy"], step["outcome"]) for step in asked] == [
        ("guard", "no rule matches"),
        ("app", "no rule matches"),
    ]


def test_denied_new_destination_tells_the_rule_that_denies_it() -> None:
    found = explained(flow("connect", address="192.0.2.2", port=80))
    assert (found["verdict"], found["errno"], found["policy"], found["rule"]) == ("deny", "EACCES", "guard", "no-nine")
    rewriting = found["rewriting"]
    assert (rewriting["rule"], rewriting["new_address"], rewriting["new_port"]) == ("bad", "127.0.0.9", 80)
    assert [step["outcome"] for step in rewriting["asked"]] == ["rule no-nine: deny"]


def test_service_tells_its_choice() -> None:
    found = explained(flow("connect", address="192.0.2.9", port=5432))
    assert (found["verdict"], found["new_address"], found["new_port"]) == ("redirect", "10.0.0.2", 5433)
    assert found["service"] == {
        "name": "db",
        "balance": "random",
        "backends": [
            {"address": "10.0.0.1", "port": 5432, "weight": 1, "share": 0.0, "alive": True, "verdict": "deny"},
            {"address": "10.0.0.2", "port": 5433, "weight": 3, "share": 0.75, "alive": True, "verdict": "redirect"},
        ],
    }


def test_service_without_a_backend_alive_denies_and_says_why() -> None:
    found = explained(flow("connect", address="192.0.2.9", port=5432), LACKING)
    assert (found["verdict"], found["errno"], found["rule"]) == ("deny", "ECONNREFUSED", "db")
    assert found["reason"] == "no backend of service db is alive"
    assert [backend["alive"] for backend in found["service"]["backends"]] == [False, False]


def test_source_that_the_host_lacks_denies_and_says_why() -> None:
    asked = flow("connect", address="198.51.100.1", port=80)
    assert explained(asked)["sets"] == {"source_address": "10.0.0.7"}
    found = explained(asked, LACKING)
    assert (found["verdict"], found["errno"]) == ("deny", "EADDRNOTAVAIL")
    assert found["reason"] == "the host does not have source address 10.0.0.7"


def test_device_that_does_not_exist_denies_and_says_why() -> None:
    asked = flow("create", family=4, type="stream")
    assert explained(asked)["sets"] == {"mark": 0x10, "priority": 6, "device": "wg0"}
    found = explained(asked, LACKING)
    assert (found["verdict"], found["errno"], found["reason"]) == ("deny", "ENODEV", "device wg0 does not exist")


def test_bind_tells_the_new_port_and_the_privilege() -> None:
    found = explained(flow("bind", address="0.0.0.0", port=80))
    assert (found["verdict"], found["new_address"], found["new_port"]) == ("rewrite", "0.0.0.0", 8080)
    assert found["sets"] == {"privileged": True}


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ({"hook": "connect", "protocol": "unix", "name": "@a"}, (Hook.CONNECT, 1, b"\0a")),
        ({"hook": "sendmsg", "protocol": "unix", "name": "a/\udcff"}, (Hook.SENDMSG, 1, b"a/\xff")),
        ({"hook": "create", "family": 6, "type": "dgram"}, (Hook.CREATE, 6, b"")),
        ({"hook": "connect", "protocol": "mptcp", "address": "::ffff:1.2.3.4", "port": 1}, (Hook.CONNECT, 4, b"")),
    ],
)
def test_question_is_a_flow(args: dict[str, Any], found: tuple[Hook, int, bytes]) -> None:
    asked = parse_flow(args)
    assert (asked.hook, asked.family, asked.name) == found


def test_question_about_a_new_socket_names_its_type() -> None:
    asked = parse_flow({"hook": "create", "family": 4, "type": "raw"})
    assert (asked.type, asked.protocol) == (SocketType.RAW, Protocol.OTHER)


@pytest.mark.parametrize(
    "args",
    [
        {"hook": "nothing"},
        {"hook": "connect", "protocol": "nothing"},
        {"hook": "connect", "protocol": "raw"},
        {"hook": "connect", "protocol": "tcp", "address": "nowhere", "port": 1},
        {"hook": "connect", "protocol": "tcp", "address": "::1", "port": 65536},
        {"hook": "connect", "protocol": "tcp", "address": "::1", "port": True},
        {"hook": "bind", "protocol": "unix", "name": "/a"},
        {"hook": "connect", "protocol": "unix"},
        {"hook": "connect", "protocol": "unix", "name": ""},
        {"hook": "connect", "protocol": "unix", "name": "/" + "a" * 108},
        {"hook": "connect", "protocol": "unix", "name": "\ud800"},
        {"hook": "create", "family": 1, "type": "stream"},
        {"hook": "create", "family": True, "type": "stream"},
        {"hook": "create", "family": 4, "type": "seqpacket"},
        {"hook": "create", "family": 4},
    ],
)
def test_question_that_makes_no_sense_is_refused(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="explain: "):
        parse_flow(args)
