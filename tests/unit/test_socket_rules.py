# SPDX-License-Identifier: Apache-2.0
"""Rules on new sockets, and the tuning of TCP connections."""

from __future__ import annotations

import pytest
from flow_text import chain, enforced
from policy_text import policy

from cgnetd.policy.evaluate import evaluate
from cgnetd.policy.tcp import tcp_settings
from cgnetd.policy.types import Action, Flow, Hook, Protocol, SocketOptions, SocketType, TcpSettings


def socket(*rules: str, more: str = "") -> str:
    return "  socket:\n" + "\n".join(f"    - {{{rule}}}" for rule in rules) + more


def create(family: int = 4, kind: SocketType = SocketType.STREAM) -> Flow:
    return Flow(Hook.CREATE, Protocol.TCP, family, 0, 0, type=kind)


def test_rule_on_sockets_is_read() -> None:
    found = policy(
        socket(
            "name: raw, action: deny, families: [inet6], types: [raw, dgram], errno: EACCES",
            "action: allow, set: {mark: 0x10, priority: 6, device: wg0}",
            more="\n  default: {socket: deny}",
        )
    )
    raw, rest = found.socket
    assert (raw.name, raw.families, raw.types) == ("raw", frozenset({6}), frozenset({SocketType.RAW, SocketType.DGRAM}))
    assert (raw.errno, raw.log, raw.options) == (13, True, None)
    assert (rest.name, rest.families, rest.types, rest.log) == ("socket[1]", None, None, False)
    assert rest.options == SocketOptions(0x10, 6, "wg0")
    assert found.default_socket is Action.DENY


@pytest.mark.parametrize(
    ("mark", "number"), [("0xFFFFFFFF", (1 << 32) - 1), ('"0x1"', 1), ("4294967295", (1 << 32) - 1), ("0", 0)]
)
def test_mark_is_decimal_or_hexadecimal(mark: str, number: int) -> None:
    assert policy(socket(f"action: allow, set: {{mark: {mark}}}")).socket[0].options == SocketOptions(number)


def test_first_rule_that_matches_family_and_type_decides() -> None:
    found = chain(
        socket("action: deny, types: [raw]", "action: allow, families: [inet], set: {mark: 1}", "action: deny")
    )
    assert enforced(found, create(4, SocketType.RAW)) == "deny p0/socket[0] errno 1"
    assert enforced(found, create(4)) == "allow p0/socket[1]"
    assert enforced(found, create(4, SocketType.OTHER)) == "allow p0/socket[1]"
    assert enforced(found, create(6, SocketType.DGRAM)) == "deny p0/socket[2] errno 1"


def test_default_and_next_policy() -> None:
    found = chain(
        socket("action: pass, types: [stream]", more="\n  default: {socket: deny}"), "  default: {socket: allow}"
    )
    assert enforced(found, create()) == "allow p1"
    assert enforced(found, create(kind=SocketType.DGRAM)) == "deny p0 errno 1"


def test_default_action_does_not_speak_of_new_sockets() -> None:
    found = chain("  egress:\n    - {action: deny}\n  default: {egress: deny, bind: deny}")
    assert evaluate(found, create(), Action.DENY).enforced.action is Action.ALLOW


def test_first_policy_that_sets_a_field_tunes_it() -> None:
    found = chain(
        "  mode: audit\n  tcp: {congestion: reno, initialWindow: 1}",
        "  tcp: {congestion: bbr}",
        "  tcp: {congestion: cubic, initialRtoMs: 200}",
        "  default: {egress: deny}",
    )
    assert found[2].tcp == TcpSettings("cubic", 200)
    assert tcp_settings(found) == TcpSettings("bbr", 200, None)
    assert tcp_settings(()) == TcpSettings()
