# SPDX-License-Identifier: Apache-2.0
"""What people read of an answer of `explain`, whoever gave it."""

from __future__ import annotations

from typing import Any

import pytest

from cgnetd.cli.answer import Style
from cgnetd.cli.explained import lines

RULE = {"policy": "web", "rule": "api", "file": "w.yaml", "line": 7}
NOWHERE = {"new_address": "", "new_port": 0, "new_name": ""}
STEP = {"policy": "guard", "tier": "admin", "priority": 1, "audit": False, "file": "g.yaml", "line": 3}
ALLOWED: dict[str, Any] = {
    "cgroup": "/a",
    "notes": [],
    "hook": "connect",
    "protocol": "tcp",
    "address": "192.0.2.10",
    "port": 80,
    "name": "",
    "source": "from the files",
    "steps": [STEP | {"outcome": "rule api: allow"}],
    **{prefix + key: value for prefix in ("", "shadow_") for key, value in (RULE | NOWHERE).items()},
    **{"verdict": "allow", "shadow_verdict": "allow", "errno": ""},
}
TO = {"new_address": "127.0.0.1", "new_port": 8080}
REDIRECTED = ALLOWED | {"verdict": "redirect", "shadow_verdict": "redirect"} | TO | {f"shadow_{k}": TO[k] for k in TO}


def text(explained: dict[str, Any]) -> str:
    return "\n".join(lines(explained, Style()))


def test_redirect_is_told_with_both_addresses_and_its_rule() -> None:
    head, by, *_ = text(REDIRECTED).splitlines()
    assert head == "/a connect tcp 192.0.2.10:80: redirected to 127.0.0.1:8080"
    assert by == "  by web/api at w.yaml:7, from the files"


def test_rewritten_bind_is_told_with_both_addresses() -> None:
    bound = REDIRECTED | {"hook": "bind", "verdict": "rewrite", "shadow_verdict": "rewrite"}
    assert "/a bind tcp 192.0.2.10:80: rewritten to 127.0.0.1:8080" in text(bound)


def test_unix_socket_is_told_by_name() -> None:
    unix = {"protocol": "unix", "address": "", "port": 0, "name": "@bus", "new_address": "", "new_name": "/run/bus"}
    assert "/a connect unix @bus: redirected to /run/bus" in text(REDIRECTED | unix)


def test_new_destination_that_is_denied_names_the_redirect_and_what_denies() -> None:
    denied = {"verdict": "deny", "errno": "EACCES", "policy": "guard", "rule": "lo", "file": "g.yaml", "line": 3}
    rewriting = RULE | TO | {"new_name": "", "asked": [STEP | {"outcome": "rule lo: deny"}]}
    found = text(ALLOWED | denied | {"rewriting": rewriting})
    assert "192.0.2.10:80: deny (EACCES)\n  by guard/lo at g.yaml:3" in found
    assert "  web/api at w.yaml:7 leads to 127.0.0.1:8080, and that is denied" in found
    assert "asked about 127.0.0.1:8080, for they come before web/api:\n  1.  guard  admin 1" in found


def test_name_that_could_be_any_path_is_told() -> None:
    denied = {"verdict": "deny", "errno": "EPERM", "name": "a/b", "rewriting": RULE | NOWHERE | {"asked": []}}
    assert "web/api at w.yaml:7 cannot be followed: the name is no absolute, plain path" in text(ALLOWED | denied)


def test_call_that_fails_for_want_of_a_backend_says_so_and_blames_no_rule() -> None:
    denied = {"verdict": "deny", "errno": "ECONNREFUSED", "reason": "no backend of service db is alive"}
    for place in (NOWHERE, TO | {"new_name": ""}):
        found = text(ALLOWED | denied | {"rewriting": RULE | place | {"asked": []}})
        assert "deny (ECONNREFUSED)\n  by web/api" in found
        assert "because no backend of service db is alive" in found
        assert "cannot be followed" not in found
        assert "leads to" not in found


def test_shadow_redirect_to_another_place_is_told() -> None:
    found = text(REDIRECTED | {"shadow_new_port": 9090})
    assert "with audit policies enforced: redirected to 127.0.0.1:9090, by web/api at w.yaml:7" in found
    assert "audit policies" not in text(REDIRECTED)


def test_backends_are_told_with_shares_and_who_is_dead() -> None:
    backends = [
        {"address": "10.0.0.1", "port": 5432, "share": 0.6667, "alive": True, "verdict": "redirect"},
        {"address": "10.0.0.2", "port": 5432, "share": 0.3333, "alive": False, "verdict": "redirect"},
        {"address": "10.0.0.3", "port": 5432, "share": 0.0, "verdict": "deny"},
    ]
    found = text(REDIRECTED | {"service": {"name": "db", "balance": "random", "backends": backends}})
    assert "by choice of service db (random) among its backends:" in found
    for part in ("10.0.0.1:5432  66.7 %  alive", "10.0.0.2:5432  33.3 %  dead", "10.0.0.3:5432  0.0 %   denied"):
        assert part in found


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({"source_address": "10.0.0.7"}, "it leaves from 10.0.0.7"),
        ({"privileged": True}, "it needs no CAP_NET_BIND_SERVICE"),
        ({"mark": 16, "device": "wg0"}, "it gets mark 0x10\n  it is bound to device wg0"),
        ({"priority": 6}, "it gets priority 6"),
    ],
)
def test_what_a_rule_sets_is_told(sets: dict[str, Any], said: str) -> None:
    assert said in text(ALLOWED | {"sets": sets})


def test_tuning_of_tcp_is_told() -> None:
    found = text(ALLOWED | {"tcp": {"congestion": "bbr", "initialRtoMs": 200}})
    assert "TCP connections: congestion bbr, initialRtoMs 200" in found


def test_answer_of_a_daemon_that_knows_no_rewriting_is_read_too() -> None:
    known = "cgroup notes hook protocol address port source steps policy rule file line errno verdict shadow_verdict"
    assert text({key: ALLOWED[key] for key in known.split()}) == text(ALLOWED)
