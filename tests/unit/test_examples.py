# SPDX-License-Identifier: Apache-2.0
"""The shipped examples are valid and do what they say; the shipped schema is that of the models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cgnetd.cli.endpoint import parse_flow
from cgnetd.cli.rewritten import judge_each, new_place, settings
from cgnetd.policy.load import ParseResult, Source, parse
from cgnetd.policy.schema import schema_text
from cgnetd.policy.select import select
from cgnetd.policy.tcp import tcp_settings
from cgnetd.policy.types import Action, TcpSettings

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))
USERS = {"alice": 1001, "bob": 1002}


def parse_examples(files: list[Path]) -> ParseResult:
    def read_set(path: str) -> bytes:
        return (CONFIG / "examples" / "sets" / Path(path).name).read_bytes()

    sources = [Source(str(file.relative_to(CONFIG)), file.read_bytes()) for file in files]
    return parse(sources, read_set=read_set, find_user=USERS.__getitem__)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_valid(file: Path) -> None:
    result = parse_examples([file])
    assert (result.problems, result.warnings) == ((), ())
    assert result.policy_set is not None
    assert result.policy_set.policies


def test_examples_are_valid_together() -> None:
    assert parse_examples(EXAMPLES).problems == ()


CALLS = [  # example, unit, call, verdict, and what becomes of it
    ("local-proxy", "/crawlers.slice/a.service", "connect tcp 203.0.113.5:443", "redirect", "127.0.0.1:3129"),
    ("local-proxy", "/crawlers.slice/a.service", "connect tcp [2001:db8::5]:80", "redirect", "::1:3129"),
    ("local-proxy", "/crawlers.slice/a.service", "sendmsg udp 203.0.113.53:53", "redirect", "127.0.0.53:53"),
    ("local-proxy", "/crawlers.slice/a.service", "connect udp 203.0.113.5:443", "deny", ""),
    ("local-proxy", "/crawlers.slice/squid.service", "connect tcp 203.0.113.5:443", "allow", ""),
    ("two-uplinks", "/backup-offsite@a.service", "connect tcp 203.0.113.5:22", "allow", "198.51.100.7"),
    ("two-uplinks", "/backup-offsite@a.service", "connect tcp [2001:db8::5]:22", "allow", "2001:db8:100::7"),
    ("two-uplinks", "/backup-offsite@a.service", "connect tcp 10.1.2.3:22", "allow", ""),
    ("bind-rewrite", "/old-shop.service", "bind tcp 0.0.0.0:80", "rewrite", "127.0.0.1:8081"),
    ("bind-rewrite", "/old-shop.service", "bind tcp 0.0.0.0:81", "deny", ""),
    ("bind-rewrite", "/front-end.service", "bind tcp [::]:8080", "rewrite", ":::80 privileged"),
    ("vpn-only", "/vpn.slice/x.service", "create inet6/dgram", "allow", "16 6 wg0"),
    ("vpn-only", "/vpn.slice/x.service", "create inet/raw", "deny", ""),
    ("vpn-only", "/vpn.slice/x.service", "create inet/other", "deny", ""),
    ("database-service", "/orders-web.service", "connect tcp 192.0.2.20:5432", "redirect", "10.40.0.11:5432"),
    (
        "database-service",
        "/orders-web.service",
        "connect tcp [2001:db8:20::1]:5432",
        "redirect",
        "2001:db8:40::11:5432",
    ),
    ("database-service", "/orders-web.service", "connect tcp 10.40.0.11:5432", "deny", ""),
    ("unix-sockets", "/build-agent.service", "connect unix /run/docker.sock", "redirect", "/run/docker-filtered.sock"),
    ("unix-sockets", "/build-agent.service", "connect unix /run/systemd/journal/stdout", "allow", ""),
    ("unix-sockets", "/build-agent.service", "connect unix @build-agent-7", "allow", ""),
    ("unix-sockets", "/build-agent.service", "connect unix ../run/containerd/containerd.sock", "deny", ""),
]


@pytest.mark.parametrize(("example", "path", "call", "verdict", "where"), CALLS)
def test_example_does_what_it_says(example: str, path: str, call: str, verdict: str, where: str) -> None:
    policy_set = parse_examples([CONFIG / "examples" / f"{example}.yaml"]).policy_set
    assert policy_set is not None
    hook, protocol, *place = call.split()
    flow = parse_flow(hook, protocol, place[0] if place else None)
    outcome = judge_each(select(policy_set, tuple(path.strip("/").split("/"))), flow, Action.ALLOW).decision.enforced
    new = new_place(outcome, flow)
    address = f"{new['new_address']}:{new['new_port']}" if new["new_address"] else new["new_name"]
    words = [address] if address else []
    words += [name if value is True else str(value) for name, value in settings(outcome, flow).items()]
    assert (outcome.action.value, " ".join(words)) == (verdict, where)


def test_example_tunes_tcp() -> None:
    policy_set = parse_examples([CONFIG / "examples" / "tuned-tcp.yaml"]).policy_set
    assert policy_set is not None
    assert tcp_settings(select(policy_set, ("transfer@a.service",))) == TcpSettings("bbr", 1500, 20)


def test_schema_is_current() -> None:
    shipped = (CONFIG / "policy.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == json.loads(schema_text()), "run: .venv/bin/python config/make_schema.py"


def test_documents_in_the_manual_are_valid() -> None:
    text = (CONFIG.parent / "docs" / "policy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        assert parse([Source("policy.md", block.encode())], read_set=lambda _: b"", find_user=len).problems == ()
