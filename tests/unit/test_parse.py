# SPDX-License-Identifier: Apache-2.0
"""What documents mean: defaults, words, names, subjects; and the errors that need more than one file."""

from __future__ import annotations

import errno
import gc

import pytest
from policy_text import HEAD, messages, parse_good, parse_texts, policy

from cgnetd.errors import Problem
from cgnetd.policy.ranges import covers
from cgnetd.policy.types import Action, Hook, Pattern, PatternKind, Protocol, Tier, Where


def subject(lists: str) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
    found = parse_good(f"{HEAD}spec:\n  subject: {lists}\n  default: {{egress: deny}}\n").policies[0].subject
    return found.match, found.exclude


def test_defaults_of_a_policy() -> None:
    found = policy("  default: {egress: deny}")
    assert (found.tier, found.priority, found.audit, found.description) == (Tier.NORMAL, 500, False, "")
    assert (found.default_egress, found.default_bind) == (Action.DENY, Action.PASS)
    assert found.where == Where("a.yaml", 1, 1)
    assert found.default_where == Where("a.yaml", 6, 3)


def test_rule_left_out_fields_match_everything() -> None:
    (rule,) = policy("  egress:\n    - action: allow").egress
    assert (rule.addresses, rule.protocols, rule.ports) == (None, None, None)
    assert rule.hooks == {Hook.CONNECT, Hook.SENDMSG}
    assert not rule.log


def test_rule_fields_as_written() -> None:
    spec = """  mode: audit
  tier: admin
  priority: 0
  egress:
    - name: one
      action: deny
      protocols: [tcp, udplite]
      ports: [443, 8000-8099, 8100, "53"]
      hooks: [sendmsg]
      errno: EHOSTUNREACH
      log: false
    - action: deny"""
    found = policy(spec)
    one, two = found.egress
    assert (found.audit, found.tier, found.priority) == (True, Tier.ADMIN, 0)
    assert (one.name, two.name) == ("one", "egress[1]")
    assert one.protocols == frozenset({Protocol.TCP, Protocol.UDPLITE})
    assert one.ports == ((53, 53), (443, 443), (8000, 8100))
    assert one.hooks == {Hook.SENDMSG}
    assert (one.errno, two.errno) == (errno.EHOSTUNREACH, errno.EPERM)
    assert (one.log, two.log) == (False, True)
    assert (one.where, two.where) == (Where("a.yaml", 10, 7), Where("a.yaml", 17, 7))


def test_protocol_any_matches_all() -> None:
    (rule,) = policy("  egress:\n    - {action: deny, protocols: [tcp, any]}").egress
    assert rule.protocols is None


@pytest.mark.parametrize(
    ("ports", "ranges", "ephemeral"),
    [("[ephemeral]", (), True), ("[80, ephemeral]", ((80, 80),), True), ("[1-65535]", ((1, 65535),), False)],
)
def test_bind_ports(ports: str, ranges: tuple[tuple[int, int], ...], ephemeral: bool) -> None:
    (rule,) = policy(f"  bind:\n    - {{action: allow, ports: {ports}}}").bind
    assert (rule.ports, rule.ephemeral, rule.hooks, rule.name) == (ranges, ephemeral, frozenset(), "bind[0]")


@pytest.mark.parametrize(
    ("words", "inside", "outside"),
    [
        ("[10.0.0.0/8]", [(4, 0x0A000000), (4, 0x0AFFFFFF)], [(4, 0x0B000000), (6, 0x0A000001)]),
        ("[localhost]", [(4, 0x7F000035), (6, 1)], [(4, 0x80000000), (6, 2)]),
        ("[link-local]", [(4, 0xA9FEA9FE), (6, 0xFE80 << 112)], [(6, 0xFEC0 << 112)]),
        ("[multicast]", [(4, 0xEF000001), (6, 0xFF02 << 112)], [(4, 0xDFFFFFFF)]),
        ("[private]", [(4, 0x0A000001), (4, 0xAC1F0001), (4, 0xC0A80001), (6, 0xFD00 << 112)], [(4, 0xAC200000)]),
        ('["::/0"]', [(6, 0), (6, (1 << 128) - 1)], [(4, 0), (4, 0x01020304)]),
        ("[0.0.0.0/0]", [(4, 0), (4, 0xFFFFFFFF)], [(6, 0), (6, 1)]),
        ('["::ffff:10.0.0.0/104"]', [(4, 0x0A000001)], [(4, 0x0B000000), (6, 0xFFFF0A000001)]),
        ('["::ffff:192.0.2.1"]', [(4, 0xC0000201)], [(6, 0xFFFFC0000201)]),
        ('["::ffff:0:0/96"]', [(4, 0), (4, 0xFFFFFFFF)], [(6, 1)]),
        ("[::1]".replace("::1", '"::1"'), [(6, 1)], [(6, 0)]),
    ],
)
def test_address_words(words: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]) -> None:
    (rule,) = policy(f"  egress:\n    - {{action: deny, to: {words}}}").egress
    assert [covers(rule.addresses, *flow) for flow in inside] == [True] * len(inside)
    assert [covers(rule.addresses, *flow) for flow in outside] == [False] * len(outside)


@pytest.mark.parametrize("words", ["[any]", '[0.0.0.0/0, "::/0"]', '[0.0.0.0/1, 128.0.0.0/1, "::/1", "8000::/1"]'])
def test_every_address_is_no_restriction(words: str) -> None:
    (rule,) = policy(f"  egress:\n    - {{action: deny, to: {words}}}").egress
    assert rule.addresses is None


def test_except_takes_away_also_without_to() -> None:
    spec = "  egress:\n    - {action: deny, to: [10.0.0.0/8, 11.0.0.0/8], except: [10.9.0.0/16]}\n"
    spec += "    - {action: deny, except: [localhost]}"
    one, two = policy(spec).egress
    assert one.addresses is not None
    assert one.addresses.v4 == ((0x0A000000, 0x0A08FFFF), (0x0A0A0000, 0x0BFFFFFF))
    assert two.addresses is not None
    assert two.addresses.v4 == ((0, 0x7EFFFFFF), (0x80000000, 0xFFFFFFFF))
    assert two.addresses.v6 == ((0, 0), (2, (1 << 128) - 1))


def test_equal_words_share_their_addresses() -> None:
    rule = "    - {action: deny, to: [10.0.0.0/8, private], except: [10.1.0.0/16], ports: [%d]}"
    rules = policy("  egress:\n" + "\n".join(rule % port for port in range(1, 4))).egress
    assert len({id(found.addresses) for found in rules}) == 1


@pytest.mark.parametrize(
    ("lists", "patterns"),
    [
        ("{units: [nginx, nginx.service, a.mount]}", ["nginx.service", "nginx.service", "a.mount"]),
        ('{units: ["php@*", "app-*.scope"]}', ["php@*.service", "app-*.scope"]),
        (r"{units: ['dev-disk\x2dby.swap']}", [r"dev-disk\x2dby.swap"]),
        ("{slices: [batch, user-7.slice]}", ["batch.slice", "user-7.slice"]),
        ('{users: [www-data, 1001, "0"]}', ["user-33.slice", "user-1001.slice", "user-0.slice"]),
    ],
)
def test_subject_names_units(lists: str, patterns: list[str]) -> None:
    assert subject(lists) == (tuple(Pattern(PatternKind.UNIT, glob) for glob in patterns), ())


def test_subject_other_kinds() -> None:
    lists = '{userUnits: [firefox], cgroups: ["/", "/a/**"], slices: [-.slice], not: {units: [b], users: [alice]}}'
    match, exclude = subject(lists)
    assert match == (
        Pattern(PatternKind.USER_UNIT, "firefox.service"),
        Pattern(PatternKind.PATH, "/"),
        Pattern(PatternKind.PATH, "/"),
        Pattern(PatternKind.PATH, "/a/**"),
    )
    assert exclude == (Pattern(PatternKind.UNIT, "b.service"), Pattern(PatternKind.UNIT, "user-1001.slice"))


def test_policies_are_sorted_by_tier_priority_and_name() -> None:
    text = "---\n".join(
        HEAD.replace("name: a", f"name: {name}")
        + f"spec: {{subject: {{units: [x]}}, tier: {tier}, priority: {priority}, default: {{bind: deny}}}}\n"
        for name, tier, priority in [("d", "baseline", 1), ("c", "normal", 9), ("b", "normal", 9), ("a", "admin", 500)]
    )
    found = parse_good(text)
    assert [found.name for found in found.policies] == ["a", "b", "c", "d"]
    assert found.files == ("a.yaml",)


def test_names_are_unique_over_files() -> None:
    text = f"{HEAD}spec: {{subject: {{units: [x]}}, default: {{bind: deny}}}}\n"
    assert messages(text, text) == ['b.yaml:3:18: metadata.name: Policy "a" is a duplicate name: first at a.yaml:3']


def test_nothing_is_a_policy_set() -> None:
    found = parse_good()
    assert (found.policies, found.sets, found.files) == ((), (), ())


def test_one_bad_document_rejects_all() -> None:
    good = f"{HEAD}spec: {{subject: {{units: [x]}}, default: {{bind: deny}}}}\n"
    result = parse_texts(good, "kind: Policy\n")
    assert result.policy_set is None
    assert {problem.file for problem in result.problems} == {"b.yaml"}


def test_problem_is_one_line_of_text() -> None:
    (problem,) = parse_texts(f'{HEAD}spec: {{subject: {{units: ["a\\nb\\e[1m["]}}}}\n').problems
    assert str(problem).isprintable()
    assert isinstance(problem, Problem)


def test_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    parse_good()
    assert gc.isenabled()
    gc.disable()
    try:
        parse_good()
        assert not gc.isenabled()
    finally:
        gc.enable()
