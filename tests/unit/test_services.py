# SPDX-License-Identifier: Apache-2.0
"""Services: how they are read, how rules on them become several, and which backend a call goes to."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from flow_text import call, chain, decided, egress, enforced, parsed, policy_text, service_text, told
from policy_text import messages, parse_good

from cgnetd.policy.types import Action, Backend, Endpoint, Health, Hook, Protocol, Rule, Service

DB = service_text(
    "db",
    '{addresses: [192.0.2.20, "2001:db8:20::1"], ports: [{port: 5432}],'
    ' backends: [{address: 10.0.0.12}, {address: 10.0.0.11, port: 5433, weight: 2}, {address: "2001:db8::11"}]}',
)
DNS = service_text(
    "dns",
    "{addresses: [192.0.2.53], ports: [{port: 53, protocol: udp}, {port: 53}, {port: 853}], errno: EHOSTUNREACH,"
    " backends: [{address: 10.0.0.53}]}",
)


def v4(text: str) -> int:
    return int(ip_address(text))


def service(spec: str) -> Service:
    return parse_good(service_text("s", spec)).services[0]


def rules(*written: str) -> tuple[Rule, ...]:
    return parsed(egress(*written), services=DB + DNS).policies[0].egress


def test_service_is_read() -> None:
    found = parse_good(DB).services[0]
    assert (found.name, found.ports, found.sticky_ns, found.health) == ("db", ((Protocol.TCP, 5432),), 0, None)
    assert found.addresses == ((4, v4("192.0.2.20")), (6, v4("2001:db8:20::1")))
    assert found.backends == (
        Backend(Endpoint(4, v4("10.0.0.11"), 5433), 2),
        Backend(Endpoint(4, v4("10.0.0.12"), 0), 1),
        Backend(Endpoint(6, v4("2001:db8::11"), 0), 1),
    )
    assert (found.errno, found.close_tcp) == (errno.ECONNREFUSED, False)
    assert (found.where.file, found.where.line) == ("a.yaml", 2)


@pytest.mark.parametrize(
    ("more", "health"),
    [
        ("health: {}", Health()),
        (
            "health: {interval: 1m, timeout: 20s, fall: 3, rise: 4, port: 80}",
            Health(60_000_000_000, 20_000_000_000, 3, 4, 80),
        ),
        ("health: {timeout: 1999ms}", Health(timeout_ns=1_999_000_000)),
    ],
)
def test_health_of_a_service(more: str, health: Health) -> None:
    found = service(f"{{addresses: [192.0.2.1], ports: [{{port: 80}}], backends: [{{address: 10.0.0.1}}], {more}}}")
    assert found.health == health


@pytest.mark.parametrize(
    ("more", "sticky_ns"), [("sticky", 600 * 10**9), ("sticky, stickyFor: 90s", 90 * 10**9), ("random", 0)]
)
def test_stickiness_of_a_service(more: str, sticky_ns: int) -> None:
    spec = f"{{addresses: [192.0.2.1], ports: [{{port: 80}}], backends: [{{address: 10.0.0.1}}], balance: {more}}}"
    assert service(spec).sticky_ns == sticky_ns


def test_datagram_service_is_probed_at_ports_of_its_backends() -> None:
    spec = "{addresses: [192.0.2.1], ports: [{port: 53, protocol: udp}], health: %s, backends: [{address: 10.0.0.1%s}]}"
    assert service(spec % ("{}", ", port: 5353")).health == Health()
    assert service(spec % ("{port: 8080}", "")).health == Health(port=8080)


def test_services_are_sorted_by_name_over_files() -> None:
    assert [found.name for found in parse_good(DNS, DB).services] == ["db", "dns"]


def test_rule_on_one_service_stays_one() -> None:
    (rule,) = rules("name: db, action: redirect, to: [service:db]")
    assert (rule.name, rule.action, rule.ports) == ("db", Action.REDIRECT, ((5432, 5432),))
    assert rule.protocols == frozenset({Protocol.TCP})
    assert rule.addresses is not None
    assert rule.addresses.v4 == ((v4("192.0.2.20"), v4("192.0.2.20")),)
    assert rule.addresses.v6 == ((v4("2001:db8:20::1"), v4("2001:db8:20::1")),)
    assert rule.redirect is not None
    assert rule.redirect.service is not None
    assert rule.redirect.service.name == "db"


def test_rule_on_several_becomes_one_for_each_service_and_protocol() -> None:
    found = rules("action: allow", "name: x, action: allow, to: [service:dns, 10.0.0.0/8, service:db], log: true")
    assert [(rule.name, rule.ports) for rule in found[1:]] == [
        ("x", None),
        ("x/service:dns/tcp", ((53, 53), (853, 853))),
        ("x/service:dns/udp", ((53, 53),)),
        ("x/service:db/tcp", ((5432, 5432),)),
    ]
    assert {rule.log for rule in found[1:]} == {True}
    assert {rule.where.line for rule in found[1:]} == {found[1].where.line}
    assert [rule.redirect for rule in found] == [None] * 5


def test_rule_without_a_name_is_named_by_its_place() -> None:
    found = rules("action: deny, to: [service:dns, service:dns]", "action: deny")
    assert [rule.name for rule in found] == ["egress[0]/service:dns/tcp", "egress[0]/service:dns/udp", "egress[1]"]


def test_ports_and_protocols_narrow_a_service() -> None:
    found = rules("action: deny, to: [service:dns], ports: [800-900]")
    assert [(rule.name, rule.ports) for rule in found] == [("egress[0]", ((853, 853),))]
    found = rules("action: deny, to: [service:dns], protocols: [udp, icmp]")
    assert [(rule.protocols, rule.ports) for rule in found] == [(frozenset({Protocol.UDP}), ((53, 53),))]


def test_except_takes_away_from_services_too() -> None:
    (rule,) = rules('action: deny, to: [service:db], except: ["::/0"]')
    assert rule.addresses is not None
    assert (len(rule.addresses.v4), rule.addresses.v6) == (1, ())


def test_each_service_goes_to_its_own_backends_unless_a_target_is_given() -> None:
    own = rules("action: redirect, to: [service:dns, service:db]")
    assert [rule.redirect.service.name for rule in own if rule.redirect and rule.redirect.service] == [
        *("dns", "dns", "db")
    ]
    given = rules("action: redirect, to: [service:dns, 192.0.2.99], redirect: {to: service:db}")
    assert {rule.redirect.service.name for rule in given if rule.redirect and rule.redirect.service} == {"db"}


def test_call_to_a_service_goes_to_a_backend_of_its_family() -> None:
    found = chain(egress("action: redirect, to: [service:db]"), services=DB)
    assert enforced(found, call("192.0.2.20", 5432)) == "redirect p0/egress[0] to 10.0.0.11:5433"
    assert enforced(found, call("2001:db8:20::1", 5432)) == "redirect p0/egress[0] to [2001:db8::11]:5432"
    assert enforced(found, call("192.0.2.20", 5433)) == "allow default_action"
    assert enforced(found, call("192.0.2.20", 5432, protocol=Protocol.UDP)) == "allow default_action"


def test_chosen_backend_is_where_the_call_goes() -> None:
    found = chain(egress("action: redirect, to: [service:db]"), services=DB)
    asked: list[tuple[str, int]] = []

    def choose(of: Service, family: int) -> Endpoint:
        asked.append((of.name, family))
        return of.backends[1].endpoint

    decision = decided(found, call("192.0.2.20", 5432), choose)
    assert told(decision.enforced) == told(decision.shadow) == "redirect p0/egress[0] to 10.0.0.12:5432"
    assert asked == [("db", 4)]


def test_call_is_denied_while_no_backend_is_alive() -> None:
    found = chain(egress("action: redirect, to: [service:dns, service:db]"), services=DB + DNS)
    refused = decided(found, call("192.0.2.20", 5432), lambda of, family: None).enforced
    assert told(refused) == f"deny p0/egress[0]/service:db/tcp errno {errno.ECONNREFUSED}"
    unreachable = call("192.0.2.53", 53, protocol=Protocol.UDP, hook=Hook.SENDMSG)
    assert enforced(found, unreachable, lambda of, family: None).endswith(f"errno {errno.EHOSTUNREACH}")


def test_backend_is_judged_by_what_comes_before() -> None:
    found = chain(egress("action: deny, to: [10.0.0.12]", "action: redirect, to: [service:db]"), services=DB)
    asked = call("192.0.2.20", 5432)
    assert enforced(found, asked).startswith("redirect p0/egress[1] to 10.0.0.11")
    assert enforced(found, asked, lambda of, family: of.backends[1].endpoint) == "deny p0/egress[0] errno 1"


def test_any_destination_can_go_to_a_service() -> None:
    found = chain(egress("action: redirect, to: [0.0.0.0/0], ports: [53], redirect: {to: [service:dns]}"), services=DNS)
    assert enforced(found, call("8.8.8.8", 53)) == "redirect p0/egress[0] to 10.0.0.53:53"


def test_reference_to_a_wrong_service_is_no_second_error() -> None:
    wrong = service_text("db", "{addresses: [192.0.2.1], ports: [{port: 0}], backends: [{address: 10.0.0.1}]}")
    (message,) = messages(policy_text("p", egress("action: redirect, to: [service:db]")) + wrong)
    assert "spec.ports[0].port" in message


def test_service_may_stand_in_another_file_than_the_rule() -> None:
    text = policy_text("p", egress("action: redirect, to: [service:db]"))
    for found in (parse_good(text, DB), parse_good(DB, text)):
        redirect = found.policies[0].egress[0].redirect
        assert redirect is not None
        assert redirect.service is found.services[0]
