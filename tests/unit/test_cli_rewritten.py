# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl explain` from files, of calls that go elsewhere, UNIX names and new sockets."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest

from cgnetd.cli import ctl
from cgnetd.cli.endpoint import parse_flow
from cgnetd.cli.judged import judge_offline
from cgnetd.cli.offline import load
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.policy.types import Action
from cgnetd.service.consequences import Now
from cgnetd.service.explain import explain as explain_image
from cgnetd.service.labelling import label_at

DOCUMENTS = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: guard}
spec:
  subject: {slices: [system.slice]}
  tier: admin
  egress:
    - {name: no-admin, action: deny, to: [127.0.0.1, 10.0.0.13], ports: [9090, 5432], errno: EACCES}
---
apiVersion: cgnetd/v1
kind: Service
metadata: {name: db}
spec:
  addresses: [192.0.2.20, 192.0.2.21]
  ports: [{port: 5432}]
  backends: [{address: 10.0.0.13}, {address: 10.0.0.11, weight: 2}, {address: 10.0.0.12, port: 5433}]
  balance: sticky
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {units: [app.service]}
  egress:
    - {name: no-local, action: deny, to: [127.0.0.2], errno: EHOSTUNREACH}
    - {name: api, action: redirect, to: [192.0.2.10], ports: [80], redirect: {to: "127.0.0.1:8080"}}
    - {name: admin, action: redirect, to: [192.0.2.11], redirect: {to: "127.0.0.1:9090"}}
    - {name: own, action: redirect, to: [192.0.2.12], redirect: {to: 127.0.0.2}}
    - {name: db, action: redirect, to: [service:db]}
    - {name: wan, action: allow, to: [198.51.100.0/24], source: {address: 10.0.0.7}}
    - {name: bus, action: redirect, unix: [/run/bus], redirect: {unix: "@filtered"}}
    - {name: no-unix, action: deny, unix: [any], errno: EACCES}
  bind:
    - {name: http, action: rewrite, addresses: ["0.0.0.0"], ports: [80], rewrite: {address: 10.0.0.7}, privileged: true}
  socket:
    - {name: no-raw, action: deny, types: [raw], errno: EACCES}
    - {name: tunnel, action: allow, families: [inet], set: {mark: 0x10, device: wg0}}
  tcp: {congestion: bbr, initialWindow: 20}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: trial}
spec:
  subject: {units: [app.service]}
  priority: 1
  mode: audit
  egress:
    - {name: elsewhere, action: redirect, to: [192.0.2.10], redirect: {to: "127.0.0.1:7070"}}
  tcp: {congestion: reno}
"""


class Explain:
    """Runs `cgnetctl explain app.service ... --policy-dir` in this process."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._directory = directory
        self._capture = capture

    def __call__(self, *words: str) -> tuple[int, str]:
        code = ctl.main(["explain", "app.service", *words, "--policy-dir", str(self._directory)])
        return code, self._capture.readouterr().out

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out = self(*words, "--json")
        return code, json.loads(out)


@pytest.fixture
def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Explain:
    (tmp_path / "p.yaml").write_text(DOCUMENTS, encoding="utf-8")
    return Explain(tmp_path, capsys)


def test_redirect_is_a_yes_with_both_addresses(explain: Explain) -> None:
    code, said = explain.json("connect", "tcp", "192.0.2.10:80")
    assert (code, said["verdict"], said["policy"], said["rule"]) == (0, "redirect", "app", "api")
    assert (said["address"], said["port"], said["new_address"], said["new_port"]) == (
        "192.0.2.10",
        80,
        "127.0.0.1",
        8080,
    )
    assert [step["outcome"] for step in said["rewriting"]["asked"]] == [
        "no rule matches",
        "no rule matches",
        "no rule matches",
    ]
    code, out = explain("connect", "tcp", "192.0.2.10:80")
    assert "192.0.2.10:80: redirected to 127.0.0.1:8080\n  by app/api at" in out


def test_audit_policy_that_would_redirect_elsewhere_is_told(explain: Explain) -> None:
    _, said = explain.json("connect", "tcp", "192.0.2.10:80")
    assert (said["shadow_verdict"], said["shadow_policy"], said["shadow_new_port"]) == ("redirect", "trial", 7070)
    _, out = explain("connect", "tcp", "192.0.2.10:80")
    assert "with audit policies enforced: redirected to 127.0.0.1:7070, by trial/elsewhere" in out


@pytest.mark.parametrize(
    ("asked", "target", "decider", "errno"),
    [
        ("192.0.2.11:443", "127.0.0.1:9090", ("guard", "no-admin"), "EACCES"),
        ("192.0.2.12:443", "127.0.0.2:443", ("app", "no-local"), "EHOSTUNREACH"),
    ],
)
def test_new_destination_that_an_earlier_rule_denies_is_a_no(
    asked: str, target: str, decider: tuple[str, str], errno: str, explain: Explain
) -> None:
    code, said = explain.json("connect", "udp", asked)
    assert (code, said["verdict"], said["errno"]) == (1, "deny", errno)
    assert (said["policy"], said["rule"]) == decider
    assert f"rule {decider[1]}: deny" in [step["outcome"] for step in said["rewriting"]["asked"]]
    _, out = explain("connect", "udp", asked)
    assert f"leads to {target}, and that is denied" in out


def test_service_shows_each_backend_with_its_share_and_its_verdict(explain: Explain) -> None:
    code, said = explain.json("connect", "tcp", "192.0.2.21:5432")
    assert (code, said["verdict"], said["new_address"], said["new_port"]) == (0, "redirect", "10.0.0.11", 5432)
    assert (said["service"]["name"], said["service"]["balance"]) == ("db", "sticky")
    shown = [(b["address"], b["port"], b["share"], b["verdict"]) for b in said["service"]["backends"]]
    assert shown == [
        ("10.0.0.11", 5432, 0.5, "redirect"),
        ("10.0.0.12", 5433, 0.25, "redirect"),
        ("10.0.0.13", 5432, 0.25, "deny"),
    ]
    _, out = explain("connect", "tcp", "192.0.2.21:5432")
    assert "10.0.0.13:5432  25.0 %  denied" in out


def test_source_and_tuning_are_told(explain: Explain) -> None:
    code, said = explain.json("connect", "tcp", "198.51.100.1:443")
    assert (code, said["verdict"], said["sets"]) == (0, "allow", {"source_address": "10.0.0.7"})
    assert said["tcp"] == {"congestion": "bbr", "initialWindow": 20}
    assert explain.json("connect", "udp", "198.51.100.1:443")[1]["tcp"] == {}


@pytest.mark.parametrize("asked", ["0.0.0.0:80", "[::]:80"])
def test_rewritten_bind_shows_what_is_bound(asked: str, explain: Explain) -> None:
    code, said = explain.json("bind", "tcp", asked)
    assert (code, said["verdict"], said["rule"], said["sets"]) == (0, "rewrite", "http", {"privileged": True})
    assert (said["new_address"], said["new_port"]) == ("10.0.0.7", 80)


def test_bind_of_an_ipv6_only_socket_is_no_bind_in_ipv4(explain: Explain) -> None:
    code, said = explain.json("bind", "tcp", "[::]:80", "--v6-only")
    assert (code, said["verdict"], said["rewriting"]) == (0, "allow", None)


def test_unix_socket_is_asked_about_by_name(explain: Explain) -> None:
    code, said = explain.json("connect", "unix", "/run/bus")
    assert (code, said["verdict"], said["name"], said["new_name"]) == (0, "redirect", "/run/bus", "@filtered")
    code, said = explain.json("sendmsg", "unix", "@other")
    assert (code, said["verdict"], said["errno"], said["rule"]) == (1, "deny", "EACCES", "no-unix")


def test_redirect_of_a_name_that_could_be_any_path_is_a_no(explain: Explain) -> None:
    code, said = explain.json("connect", "unix", "run/../bus")
    assert (code, said["verdict"], said["errno"], said["rule"]) == (1, "deny", "EPERM", "bus")
    _, out = explain("connect", "unix", "run/../bus")
    assert "app/bus at" in out
    assert "cannot be followed: the name is no absolute, plain path" in out


def test_new_sockets_are_asked_about_by_family_and_type(explain: Explain) -> None:
    code, said = explain.json("create", "inet/stream")
    assert (code, said["verdict"], said["rule"], said["sets"]) == (0, "allow", "tunnel", {"mark": 16, "device": "wg0"})
    code, said = explain.json("create", "inet6/raw")
    assert (code, said["verdict"], said["errno"], said["rule"]) == (1, "deny", "EACCES", "no-raw")
    assert explain.json("create", "inet6/dgram")[1]["rule"] == "default_action"


def test_redirect_denies_raw_sockets_without_being_taken_for_a_lead(explain: Explain) -> None:
    code, said = explain.json("socket", "raw")
    assert (code, said["verdict"], said["rule"], said["rewriting"]) == (1, "deny", "no-admin", None)


CALLS = [
    "connect tcp 192.0.2.10:80",
    "sendmsg udp 192.0.2.10:80",
    "connect udp 192.0.2.11:443",
    "connect tcp 192.0.2.12:443",
    "connect tcp 192.0.2.21:5432",
    "connect tcp 127.0.0.1:5432",
    "connect tcp 198.51.100.1:443",
    "connect sctp 198.51.100.1:443",
    "connect tcp [2001:db8::1]:443",
    "bind tcp 0.0.0.0:80",
    "bind tcp [::]:80",
    "bind tcp 127.0.0.1:80",
    "post_bind tcp 0.0.0.0:80",
    "connect unix /run/bus",
    "sendmsg unix @other",
    "connect unix run/../bus",
    "create inet/stream",
    "create inet/raw",
    "create inet6/dgram",
    "socket raw",
    "socket udplite",
]


@pytest.mark.parametrize("call", CALLS)
def test_files_and_the_image_made_of_them_are_explained_alike(call: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(DOCUMENTS, encoding="utf-8")
    hook, protocol, *place = call.split()
    flow = parse_flow(hook, protocol, place[0] if place else None)
    policy_set = load([str(tmp_path)]).policy_set
    assert policy_set is not None
    image = compile_image(policy_set, default_action=Action.ALLOW, generation=1)
    path = ("system.slice", "app.service")
    reader = ImageReader(image.cells)
    shares = {("db", 4, 0): 0.5, ("db", 4, 1): 0.25, ("db", 4, 2): 0.25}
    now = Now({("db", 4): (0, 1, 2)}, shares, frozenset({"wg0"}), frozenset({"10.0.0.7"}))
    running = explain_image(reader, image.index, label_at(reader, "/" + "/".join(path)), flow, now)
    offline = judge_offline([str(tmp_path)], path, flow, "allow")
    if call == "bind tcp [::]:80":  # the socket is an IPv6 one, whose new address is a mapped one
        running["new_address"] = str(ipaddress.IPv6Address(running["new_address"]).ipv4_mapped)
        del running["rewriting"]["new_address"], offline["rewriting"]["new_address"]
    for backend in (running["service"] or {"backends": []})["backends"]:
        assert backend.pop("alive")
    ours = ("generation", "source", "reason", "shadow_new_address", "shadow_new_port")
    assert {k: v for k, v in running.items() if k not in ours} == {k: v for k, v in offline.items() if k not in ours}
