# SPDX-License-Identifier: Apache-2.0
"""What is warned about of rules that rewrite: denied targets, circles, services that nobody uses."""

from __future__ import annotations

import pytest
from flow_text import bind, egress, policy_text, service_text
from policy_text import parse_texts

from support.work import work

SERVICE = "{addresses: [192.0.2.20], ports: [{port: 53}, {port: 53, protocol: udp}], backends: [%s]}"
TO_TWO = "action: redirect, to: [10.0.0.1], redirect: {to: %s}"


def warnings(*specs: str, services: str = "") -> list[str]:
    texts = [policy_text(f"p{number}", spec) for number, spec in enumerate(specs)]
    result = parse_texts("".join(texts) + services)
    assert result.problems == ()
    return [str(warning) for warning in result.warnings]


@pytest.mark.parametrize(
    ("denies", "target"),
    [
        ("to: [10.0.0.2]", "10.0.0.2"),
        ("to: [10.0.0.2], ports: [8080]", "10.0.0.2:8080"),
        ("to: [10.0.0.2], ports: [8080], protocols: [udp]", "10.0.0.2:8080"),
        ("to: [10.0.0.0/8], except: [10.0.0.1], hooks: [sendmsg]", "10.0.0.2"),
    ],
)
def test_target_that_an_earlier_rule_denies(denies: str, target: str) -> None:
    (found,) = warnings(egress(f"action: deny, {denies}", TO_TWO % f'"{target}"'))
    assert found.startswith("a.yaml:9:7: spec.egress[1]: its target 10.0.0.2")
    assert found.endswith("is denied by egress[0] (line 8), which comes before it: so are the calls that it matches")


@pytest.mark.parametrize(
    "rules",
    [
        [TO_TWO % "10.0.0.2", "action: deny, to: [10.0.0.2]"],
        ["action: deny, to: [10.0.0.2], ports: [80]", TO_TWO % '"10.0.0.2:81"'],
        ["action: allow, to: [10.0.0.2]", "action: deny, to: [10.0.0.0/24], except: [10.0.0.1]", TO_TWO % "10.0.0.2"],
        ["action: deny, ports: [25]", TO_TWO % "10.0.0.2"],
        ["action: deny, to: [10.0.0.2], protocols: [icmp]", TO_TWO % "10.0.0.2"],
    ],
)
def test_target_that_is_let_pass(rules: list[str]) -> None:
    assert warnings(egress(*rules)) == []


def test_kept_port_is_looked_at_where_rules_deny() -> None:
    (found,) = warnings(egress("action: deny, to: [10.0.0.2], ports: [5432]", TO_TWO % "10.0.0.2"))
    assert "its target 10.0.0.2:5432 is denied by egress[0] (line 8)" in found


def test_backend_that_is_denied() -> None:
    service = service_text("db", SERVICE % "{address: 10.0.0.1}, {address: 10.0.0.2, port: 5353}")
    (found,) = warnings(egress("action: deny, to: [10.0.0.2]", "action: redirect, to: [service:db]"), services=service)
    assert "spec.egress[1]: its target 10.0.0.2:5353 is denied by egress[0] (line 8)" in found


def test_rewritten_bind_that_is_denied() -> None:
    rewrite = "action: rewrite, addresses: [0.0.0.0/0], ports: [80], rewrite: {port: 8080}"
    (found,) = warnings(bind("action: deny, addresses: [10.0.0.1], ports: [8080]", rewrite))
    assert "spec.bind[1]: its target 10.0.0.1:8080 is denied by bind[0] (line 8)" in found


def test_name_that_is_denied() -> None:
    rules = ["action: deny, unix: [/run/y]", "action: redirect, unix: [/run/x*], redirect: {unix: /run/y}"]
    (found,) = warnings(egress(*rules))
    assert "spec.egress[1]: its target /run/y is denied by egress[0] (line 8)" in found


ADMIN = "  tier: admin\n"


def test_target_that_another_policy_may_deny() -> None:
    (found,) = warnings(egress(TO_TWO % "10.0.0.2"), ADMIN + egress("action: deny, to: [10.0.0.2]"))
    assert found == (
        'a.yaml:8:7: spec.egress[0]: its target 10.0.0.2 may be denied by policy "p1", rule egress[0] (a.yaml:17), '
        "where that policy is asked before this one"
    )


def test_target_that_the_default_of_another_policy_may_deny() -> None:
    strict = ADMIN + egress("action: pass, to: [10.0.0.1]") + "\n  default: {egress: deny}"
    (found,) = warnings(egress(TO_TWO % "10.0.0.2"), strict)
    assert 'may be denied by policy "p1", its default (a.yaml:18)' in found


@pytest.mark.parametrize(
    "other",
    [
        "  tier: baseline\n" + egress("action: deny, to: [10.0.0.2]"),
        "  priority: 900\n" + egress("action: deny, to: [10.0.0.2]"),
        ADMIN + "  mode: audit\n" + egress("action: deny, to: [10.0.0.2]"),
        ADMIN + egress("action: deny"),
        ADMIN + "  default: {egress: deny}",
        ADMIN + egress("action: allow, to: [10.0.0.2]", "action: deny, to: [10.0.0.0/24], except: [10.0.0.1]"),
    ],
)
def test_policy_that_cannot_deny_the_target(other: str) -> None:
    assert warnings(egress(TO_TWO % "10.0.0.2"), other) == []


def test_policies_of_different_units_do_not_meet() -> None:
    text = policy_text("p0", egress(TO_TWO % "10.0.0.2"))
    for unit, count in (("b.service", 0), ("a.*", 0), ("a*.service", 1), ("x.slice", 1)):
        other = policy_text("p1", ADMIN + egress("action: deny, to: [10.0.0.2]")).replace("a.service", f'"{unit}"')
        assert len(parse_texts(text + other).warnings) == count, unit


def test_redirect_that_matches_its_own_target() -> None:
    assert warnings(egress('action: redirect, to: [10.0.0.0/8], redirect: {to: "10.0.0.2:80"}')) == [
        "a.yaml:8:7: spec.egress[0]: leads back to itself: it matches its own target 10.0.0.2:80, so that a program "
        'there that policy "p0" governs meets itself'
    ]


def test_port_that_is_kept_is_told_only_if_the_rule_names_it() -> None:
    (found,) = warnings(egress("action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.1}"))
    assert "its own target 10.0.0.1, so" in found
    (found,) = warnings(egress("action: redirect, to: [10.0.0.1], ports: [81], redirect: {to: 10.0.0.1}"))
    assert "its own target 10.0.0.1:81, so" in found


@pytest.mark.parametrize(
    "rules",
    [
        ['action: redirect, to: [10.0.0.0/8], ports: [80], redirect: {to: "10.0.0.2:81"}'],
        ["action: allow, to: [10.0.0.2]", 'action: redirect, to: [10.0.0.0/8], redirect: {to: "10.0.0.2:80"}'],
        ["action: redirect, to: [10.0.0.1], redirect: {to: 10.0.0.2}"],
    ],
)
def test_redirect_that_leads_away(rules: list[str]) -> None:
    assert warnings(egress(*rules)) == []


def test_redirects_that_lead_in_a_circle_are_told_once() -> None:
    there = "name: there, action: redirect, to: [10.0.0.1], ports: [80], redirect: {to: 10.0.0.2}"
    back = 'name: back, action: redirect, to: [10.0.0.2], redirect: {to: "10.0.0.1:80"}'
    circle = "spec.egress[0]: leads in a circle: to 10.0.0.2:80, from there by back of policy "
    (found,) = warnings(egress(there, back))
    assert found == f'a.yaml:8:7: {circle}"p0" (a.yaml:9) to 10.0.0.1:80, and back'
    (found,) = warnings(egress(there), egress(back))
    assert found == f'a.yaml:8:7: {circle}"p1" (a.yaml:16) to 10.0.0.1:80, and back'


def test_circle_through_a_service() -> None:
    service = service_text("dns", SERVICE % "{address: 10.0.0.1}")
    rules = ["action: redirect, to: [service:dns]", "action: redirect, to: [10.0.0.1], redirect: {to: 192.0.2.20}"]
    (found,) = warnings(egress(*rules), services=service)
    assert 'spec.egress[0]: leads in a circle: to 10.0.0.1:53, from there by egress[1] of policy "p0"' in found


def test_names_that_lead_in_a_circle() -> None:
    rules = [
        "action: redirect, unix: [/run/x], redirect: {unix: /run/y}",
        "action: redirect, unix: [/run/y], redirect: {unix: /run/x}",
    ]
    (found,) = warnings(egress(*rules))
    assert "leads in a circle: to /run/y, from there by egress[1]" in found


def test_unused_service_is_doubted() -> None:
    service = service_text("db", SERVICE % "{address: 10.0.0.1}")
    (found,) = warnings("  default: {egress: deny}", services=service)
    assert found == 'a.yaml:9:1: metadata.name: service "db" is used by no rule'
    assert warnings(egress("action: allow, to: [service:db]"), services=service) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("unix: [any]", "unix: [/run/x]"),
        ('unix: ["@x", /run/x]', "unix: [/run/x], hooks: [connect]"),
        ("unix: [/run/x]", "unix: [/run/x]"),
    ],
)
def test_shadowed_rule_on_names(first: str, second: str) -> None:
    (found,) = warnings(egress(f"action: allow, {first}", f"action: deny, {second}"))
    assert found.endswith("spec.egress[1]: is never reached: egress[0] (line 8) matches all that it matches")


@pytest.mark.parametrize(
    ("first", "second"),
    [("unix: [any]", "to: [any]"), ("to: [any]", "unix: [/run/x]"), ("unix: [/run/x]", "unix: [/run/y]")],
)
def test_names_and_addresses_do_not_hide_each_other(first: str, second: str) -> None:
    assert warnings(egress(f"action: allow, {first}", f"action: deny, {second}")) == []


def test_shadowed_rule_on_sockets() -> None:
    rules = "  socket:\n    - {action: allow, %s}\n    - {action: deny, %s}"
    assert "spec.socket[1]: is never reached" in warnings(rules % ("types: [raw, dgram]", "types: [raw]"))[0]
    assert warnings(rules % ("families: [inet]", "types: [raw]")) == []


def test_shadowed_part_of_a_rule_is_named_and_places_are_those_in_the_text() -> None:
    services = service_text("dns", SERVICE % "{address: 10.0.0.1}")
    rules = [
        "action: allow, to: [service:dns], protocols: [udp]",
        "action: deny, to: [service:dns]",
        "action: pass, log: true",
    ]
    part, last = warnings(egress(*rules), services=services)
    assert "spec.egress[1]: its part service:dns/udp is never reached: egress[0] (line 8)" in part
    assert "spec.egress[2].log: has no effect" in last


def test_policy_that_only_tunes_or_speaks_of_sockets_decides_something() -> None:
    assert warnings("  tcp: {congestion: bbr}") == []
    assert warnings("  default: {socket: deny}") == []


def test_search_is_bounded() -> None:
    def search(count: int) -> int:
        rules = [f"action: deny, to: [10.1.{n >> 8}.{n & 255}]" for n in range(count)]
        rules += [f"action: redirect, to: [10.2.{n >> 8}.{n & 255}], redirect: {{to: 10.3.0.1}}" for n in range(count)]
        text = policy_text("p0", egress(*rules)) + policy_text("p1", ADMIN + egress(*rules))
        return work(lambda: parse_texts(text))

    assert search(400) < 2 * search(200)  # of each rule beside each other one it would be four times as much
