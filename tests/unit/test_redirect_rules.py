# SPDX-License-Identifier: Apache-2.0
"""Redirects, sources and rewritten binds: how they are read, and where calls go."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from flow_text import bind, binding, call, chain, decided, egress, enforced, told
from policy_text import policy

from cgnetd.policy.evaluate import judge
from cgnetd.policy.types import Action, Endpoint, Hook, LocalAddresses, Protocol, Redirect, Rewrite, Rule

TO_LOCAL = 'redirect: {to: ["127.0.0.1:8080", "[::1]:8081"]}'
AUDIT = "  mode: audit\n"


def v4(text: str) -> int:
    return int(ip_address(text))


def rule_of(rule: str, section: str = "egress") -> Rule:
    found = policy(f"  {section}:\n    - {{{rule}}}")
    (made,) = found.egress if section == "egress" else found.bind
    return made


@pytest.mark.parametrize(
    ("to", "endpoint"),
    [
        ("127.0.0.1:80", Endpoint(4, v4("127.0.0.1"), 80)),
        ("127.0.0.1", Endpoint(4, v4("127.0.0.1"), 0)),
        ('["127.0.0.1:80"]', Endpoint(4, v4("127.0.0.1"), 80)),
        ('"::ffff:127.0.0.1"', Endpoint(4, v4("127.0.0.1"), 0)),
        ('"[::ffff:127.0.0.1]:80"', Endpoint(4, v4("127.0.0.1"), 80)),
    ],
)
def test_target_is_written_as_address_and_port(to: str, endpoint: Endpoint) -> None:
    assert rule_of(f"action: redirect, to: [10.0.0.1], redirect: {{to: {to}}}").redirect == Redirect(v4=endpoint)


@pytest.mark.parametrize(("to", "port"), [('"[::1]:80"', 80), ('"[::1]"', 0), ('"::1"', 0)])
def test_target_of_ipv6(to: str, port: int) -> None:
    found = rule_of(f'action: redirect, to: ["2001:db8::1"], redirect: {{to: {to}}}')
    assert found.redirect == Redirect(v6=Endpoint(6, 1, port))


@pytest.mark.parametrize("protocols", ["", ", protocols: [any]", ", protocols: [udp, tcp]"])
def test_redirect_is_for_tcp_and_udp(protocols: str) -> None:
    found = rule_of(f"action: redirect, {TO_LOCAL}{protocols}")
    assert found.protocols == frozenset({Protocol.TCP, Protocol.UDP})
    assert rule_of(f"action: redirect, {TO_LOCAL}, protocols: [udp]").protocols == frozenset({Protocol.UDP})


def test_source_is_read_and_limits_the_rule_to_tcp_and_udp() -> None:
    found = rule_of('action: allow, source: {address: ["2001:db8::7", 10.0.0.7]}')
    assert found.source == LocalAddresses(v4("10.0.0.7"), v4("2001:db8::7"))
    assert found.protocols == frozenset({Protocol.TCP, Protocol.UDP})
    assert rule_of("action: allow, to: [0.0.0.0/0], source: {address: 10.0.0.7}").source == LocalAddresses(
        v4("10.0.0.7")
    )


def test_bind_rewrite_is_read() -> None:
    found = rule_of("action: rewrite, addresses: [0.0.0.0], rewrite: {address: 10.0.0.7, port: 8080}", "bind")
    assert found.rewrite == Rewrite(LocalAddresses(v4("10.0.0.7")), 8080)
    assert found.protocols == frozenset({Protocol.TCP, Protocol.UDP})
    assert (found.privileged, rule_of("action: allow, privileged: true", "bind").privileged) == (False, True)
    assert rule_of("action: rewrite, rewrite: {port: 80}", "bind").rewrite == Rewrite(port=80)


def test_rewriting_rules_do_not_log_unless_told() -> None:
    assert not rule_of(f"action: redirect, {TO_LOCAL}").log
    assert rule_of(f"action: redirect, {TO_LOCAL}, log: true").log


def test_call_goes_to_the_target_of_its_family() -> None:
    found = chain(egress(f"action: redirect, ports: [80], {TO_LOCAL}"))
    assert enforced(found, call("192.0.2.1", 80)) == "redirect p0/egress[0] to 127.0.0.1:8080"
    assert enforced(found, call("2001:db8::1", 80)) == "redirect p0/egress[0] to [::1]:8081"
    assert enforced(found, call("192.0.2.1", 81)) == "allow default_action"
    assert enforced(found, call("192.0.2.1", 80, protocol=Protocol.SCTP)) == "allow default_action"


def test_port_left_out_is_kept() -> None:
    found = chain(egress('action: redirect, redirect: {to: [127.0.0.1, "::1"]}'))
    assert enforced(found, call("192.0.2.1", 80)) == "redirect p0/egress[0] to 127.0.0.1:80"
    datagram = call("2001:db8::1", 53, protocol=Protocol.UDP, hook=Hook.SENDMSG)
    assert enforced(found, datagram) == "redirect p0/egress[0] to [::1]:53"


def test_redirect_is_final() -> None:
    found = chain(
        egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"),
        egress("action: redirect, to: [10.0.0.2], redirect: {to: 10.0.0.3}", "action: deny"),
    )
    assert enforced(found, call("10.0.0.1")) == "redirect p0/egress[0] to 10.0.0.2:443"


def test_what_comes_before_the_rule_denies_its_target() -> None:
    target = "action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"
    denies = "action: deny, to: [10.0.0.2], errno: EACCES"
    allows = "action: allow, to: [10.0.0.2]"
    asked = call("10.0.0.1")
    assert enforced(chain(egress(denies, target)), asked) == f"deny p0/egress[0] errno {errno.EACCES}"
    assert enforced(chain(egress(target, denies)), asked).startswith("redirect p0/egress[0]")
    assert enforced(chain(egress(allows, denies, target)), asked).startswith("redirect p0/egress[2]")
    assert enforced(chain(egress(denies), egress(target)), asked) == f"deny p0/egress[0] errno {errno.EACCES}"
    assert enforced(chain(egress(allows), egress(denies, target)), asked).startswith("redirect p1/egress[1]")
    assert enforced(chain(egress(target), egress(denies)), asked).startswith("redirect p0/egress[0]")


def test_default_of_a_policy_before_denies_the_target() -> None:
    strict = egress("action: pass, to: [10.0.0.1]") + "\n  default: {egress: deny}"
    target = egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}") + "\n  default: {egress: deny}"
    assert enforced(chain(strict, target), call("10.0.0.1")) == "deny p0 errno 1"
    assert enforced(chain(target), call("10.0.0.1")).startswith("redirect")


def test_target_is_judged_with_hook_protocol_and_port_of_the_call() -> None:
    target = "action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"
    for denies in ("protocols: [udp]", "ports: [80]", "hooks: [sendmsg]"):
        found = chain(egress(f"action: deny, to: [10.0.0.2], {denies}", target))
        assert enforced(found, call("10.0.0.1")).startswith("redirect")
    datagram = call("10.0.0.1", 80, protocol=Protocol.UDP, hook=Hook.SENDMSG)
    assert enforced(found, datagram).startswith("deny")


def test_a_redirect_before_does_not_deny_the_target() -> None:
    found = chain(
        egress("action: redirect, to: [10.0.0.2], redirect: {to: 10.0.0.3}", "action: deny, to: [10.0.0.2]"),
        egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"),
    )
    assert enforced(found, call("10.0.0.1")) == "redirect p1/egress[0] to 10.0.0.2:443"


def test_audit_policy_denies_the_target_in_the_shadow_alone() -> None:
    found = chain(
        AUDIT + egress("action: deny, to: [10.0.0.2]"),
        egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"),
    )
    decision = decided(found, call("10.0.0.1"))
    assert told(decision.enforced) == "redirect p1/egress[0] to 10.0.0.2:443"
    assert told(decision.shadow) == "deny p0/egress[0] errno 1"


def test_redirect_of_an_audit_policy_is_a_shadow() -> None:
    found = chain(AUDIT + egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"))
    decision = decided(found, call("10.0.0.1"))
    assert (told(decision.enforced), told(decision.shadow)) == (
        "allow default_action",
        "redirect p0/egress[0] to 10.0.0.2:443",
    )
    assert [(step.action, step.audit) for step in decision.steps] == [(Action.REDIRECT, True)]


def test_socket_of_another_cgroup_can_deny_and_rewrites_nothing() -> None:
    redirects = chain(egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"))
    allows, denies = chain(egress("action: allow")), chain(egress("action: deny, to: [10.0.0.2]"))

    def both(task: tuple[object, ...], made_by: tuple[object, ...]) -> str:
        return told(judge(task, made_by, call("10.0.0.1"), Action.ALLOW).enforced)  # type: ignore[arg-type]

    assert both(allows, redirects) == "allow p0/egress[0]"
    assert both((), redirects) == "allow p0/egress[0]"
    assert both(redirects, allows) == "redirect p0/egress[0] to 10.0.0.2:443"
    assert both(redirects, denies) == "redirect p0/egress[0] to 10.0.0.2:443"  # the call as it was made
    assert both(redirects, chain(egress("action: deny"))) == "deny p0/egress[0] errno 1"


def test_sockets_that_no_hook_sees() -> None:
    redirects = chain(egress(f"action: redirect, {TO_LOCAL}", "action: allow"))
    sources = chain(egress('action: allow, source: {address: [10.0.0.7, "::7"]}') + "\n  default: {egress: deny}")
    ping = call("0.0.0.0", 0, protocol=Protocol.ICMP, hook=Hook.SOCKET)
    raw = type(ping)(Hook.SOCKET, Protocol.OTHER, 4, 0, 0, raw=True)
    assert enforced(redirects, ping) == "allow p0/egress[1]"
    assert enforced(redirects, raw) == "deny p0/egress[0] errno 1"
    assert enforced(sources, ping) == "deny p0 errno 1"
    assert enforced(sources, raw) == "deny p0 errno 1"


def test_source_is_of_the_rule_that_allows() -> None:
    found = chain(egress("action: allow, to: [10.0.0.0/8], source: {address: 10.0.0.7}", "action: allow"))
    outcome = decided(found, call("10.0.0.1")).enforced
    assert outcome.action is Action.ALLOW
    assert outcome.rule is not None
    assert outcome.rule.source == LocalAddresses(v4("10.0.0.7"))


def test_bind_is_rewritten() -> None:
    found = chain(bind('action: rewrite, addresses: [0.0.0.0, "::"], ports: [80], rewrite: {port: 8080}'))
    assert enforced(found, binding("0.0.0.0", 80)) == "rewrite p0/bind[0] to 0.0.0.0:8080"
    assert enforced(found, binding("::", 80, v6_only=True)) == "rewrite p0/bind[0] to [::]:8080"
    assert enforced(found, binding("::", 80)) == "rewrite p0/bind[0] to [::]:8080"
    assert enforced(found, binding("10.0.0.1", 80)) == "allow default_action"


def test_address_of_a_bind_is_rewritten_and_its_port_kept() -> None:
    found = chain(bind("action: rewrite, addresses: [0.0.0.0/0], rewrite: {address: 10.0.0.7}"))
    assert enforced(found, binding("0.0.0.0", 80)) == "rewrite p0/bind[0] to 10.0.0.7:80"
    assert decided(found, binding("127.0.0.1", 0)).enforced.target == Endpoint(4, v4("10.0.0.7"), 0)


def test_port_that_the_kernel_picked_is_not_rewritten() -> None:
    found = chain(bind("action: rewrite, ports: [40000-50000, ephemeral], rewrite: {port: 8080}"))
    assert enforced(found, binding("127.0.0.1", 0)) == "rewrite p0/bind[0] to 127.0.0.1:8080"
    assert enforced(found, binding("127.0.0.1", 40001, hook=Hook.POST_BIND)) == "allow p0/bind[0]"


def test_rewritten_bind_is_judged_by_what_comes_before() -> None:
    target = "action: rewrite, addresses: [0.0.0.0], ports: [80], rewrite: {address: 10.0.0.7, port: 8080}"
    denies = "action: deny, addresses: [10.0.0.7], ports: [8080], errno: EACCES"
    assert enforced(chain(bind(denies, target)), binding("0.0.0.0", 80)) == "deny p0/bind[0] errno 13"
    assert enforced(chain(bind(denies), bind(target)), binding("0.0.0.0", 80)).startswith("deny p0")
    assert enforced(chain(bind(target, denies)), binding("0.0.0.0", 80)).startswith("rewrite")


@pytest.mark.parametrize(
    ("as_v6", "as_v4", "verdict"),
    [
        ("deny", "rewrite, rewrite: {address: 10.0.0.7}", "deny p0/bind[0] errno 1"),
        ('rewrite, rewrite: {address: "2001:db8::7"}', "deny", "deny p0/bind[1] errno 1"),
        ('rewrite, rewrite: {address: "2001:db8::7"}', "allow", "rewrite p0/bind[0] to [2001:db8::7]:80"),
        (
            'rewrite, rewrite: {address: "2001:db8::7"}',
            "rewrite, rewrite: {port: 81}",
            "rewrite p0/bind[0] to [2001:db8::7]:80",
        ),
        ("allow", "rewrite, rewrite: {address: 10.0.0.7, port: 81}", "rewrite p0/bind[1] to 10.0.0.7:81"),
        ("allow", "rewrite, rewrite: {port: 81}", "rewrite p0/bind[1] to [::]:81"),
        ("rewrite, rewrite: {port: 82}", "allow", "rewrite p0/bind[0] to [::]:82"),
        ("rewrite, rewrite: {port: 82}", "rewrite, rewrite: {port: 81}", "rewrite p0/bind[1] to [::]:81"),
        ("allow", "allow", "allow p0/bind[0]"),
    ],
)
def test_dual_stack_bind_is_one_of_both_families(as_v6: str, as_v4: str, verdict: str) -> None:
    found = chain(bind(f'addresses: ["::"], action: {as_v6}', f"addresses: [0.0.0.0], action: {as_v4}"))
    assert enforced(found, binding("::", 80)) == verdict
    assert enforced(found, binding("::", 80, v6_only=True)).split()[0] == as_v6.partition(",")[0]


@pytest.mark.parametrize(("guarded", "written"), [("0.0.0.0", '"::"'), ('"::"', "0.0.0.0")])
def test_dual_stack_bind_is_judged_as_both_at_its_new_port(guarded: str, written: str) -> None:
    """It keeps [::], so it takes the new port in both families, whichever of them the rule is about."""
    guard = f"action: deny, addresses: [{guarded}], ports: [8080], errno: EACCES"
    rule = f"action: rewrite, addresses: [{written}], ports: [80], rewrite: {{port: 8080}}"
    for found in (chain(bind(guard, rule)), chain(bind(guard), bind(rule))):
        assert enforced(found, binding("::", 80)) == "deny p0/bind[0] errno 13"
    v6_only = enforced(chain(bind(guard, rule)), binding("::", 80, v6_only=True))
    assert v6_only == ("rewrite p0/bind[1] to [::]:8080" if written == '"::"' else "allow default_action")
