# SPDX-License-Identifier: Apache-2.0
"""What is accepted but hardly meant: rules that never decide, targets that are denied, sets that nobody uses.

Every doubt is true when told; not every one there is will be told, because the search is bounded: it must cost next to
nothing for ten thousand rules. Must not know of files or text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from itertools import groupby

from ..errors import Problem
from .detours import Detours
from .ranges import size
from .shadowing import Earlier
from .types import Action, AddressRanges, Policy, PolicySet, Rule, Section, Where


def doubts(
    policy_set: PolicySet, used: Collection[str], known: MutableMapping[int, tuple[Policy, tuple[Problem, ...]]]
) -> list[Problem]:
    """Warnings about a policy set that is otherwise right, sorted. `used` are the words `set:NAME` and `service:NAME`
    of all rules. `known`: what was found about policies, by their identities; those that are not there are added,
    but for policies that rewrite, about which other policies say something too."""
    found: list[Problem] = []
    detours = Detours(policy_set.policies)
    for policy in policy_set.policies:
        if id(policy) in known:
            found += known[id(policy)][1]
            continue
        sections = (policy.egress, policy.bind, policy.socket)
        own = (*_about_policy(policy), *(doubt for rules in sections for doubt in _about_rules(policy, rules, detours)))
        found += own
        if not any(rule.action.rewrites for rules in sections for rule in rules):
            known[id(policy)] = (policy, own)
    for address_set in policy_set.sets:
        if f"set:{address_set.name}" not in used:
            found.append(_doubt(address_set.where, "metadata.name", f'set "{address_set.name}" is used by no rule'))
        if size(address_set.ranges) == 0:
            found.append(_doubt(address_set.where, "spec", f'set "{address_set.name}" holds no address'))
    for service in policy_set.services:
        if f"service:{service.name}" not in used:
            found.append(_doubt(service.where, "metadata.name", f'service "{service.name}" is used by no rule'))
    return sorted(set(found))


def _doubt(where: Where, key: str, message: str) -> Problem:
    return Problem(where.file, where.line, where.column, key, message)


def _about_policy(policy: Policy) -> Iterator[Problem]:
    has_default = {policy.default_egress, policy.default_bind, policy.default_socket} != {Action.PASS}
    if not (policy.egress or policy.bind or policy.socket or policy.tcp or has_default):
        yield _doubt(policy.where, "spec", f'policy "{policy.name}" decides nothing: it has no rules and no default')
    if set(policy.subject.match) <= set(policy.subject.exclude):
        yield _doubt(policy.where, "spec.subject", f'policy "{policy.name}" governs nothing: `not` takes all away')


def _about_rules(policy: Policy, rules: Sequence[Rule], detours: Detours) -> Iterator[Problem]:
    earlier = Earlier()
    for index, rule in _numbered(rules):
        shadowing = earlier.wider_than(rule)
        if shadowing:
            key = _key(rule, index)
            part = f"its part {_part(rule)} " if _part(rule) else ""
            place = f"{shadowing.name} (line {shadowing.where.line})"
            yield _doubt(rule.where, key, f"{part}is never reached: {place} matches all that it matches")
        else:
            earlier.add(rule)
            if rule.action.rewrites:
                yield from detours.about(policy, rule, (*_place(rule.where), _key(rule, index)))
        if rule.addresses is not None and _may_be_doubted(rule.addresses):
            yield from _about_addresses(rule, _key(rule, index), rule.addresses)
        if rule.action is Action.PASS and rule.log:
            yield _doubt(rule.where, f"{_key(rule, index)}.log", "has no effect: a pass decides nothing")


def _key(rule: Rule, index: int) -> str:
    return f"spec.{rule.section.value}[{index}]"


def _numbered(rules: Sequence[Rule]) -> Iterator[tuple[int, Rule]]:
    """The rules with their places in the list as it was written, where a rule on services is one."""
    if not any("/" in rule.name for rule in rules):
        return enumerate(rules)
    written = groupby(rules, key=lambda rule: rule.name.partition("/")[0])
    return ((index, rule) for index, (_, parts) in enumerate(written) for rule in parts)


def _part(rule: Rule) -> str:
    """Which part it is of a rule that was written with services; "" if it is the whole rule."""
    return rule.name.partition("/")[2]


def _place(where: Where) -> tuple[str, int, int]:
    return where.file, where.line, where.column


def _may_be_doubted(addresses: AddressRanges) -> bool:
    """What hardly any addresses do, told quickly: there are none, or 0.0.0.0 is among them."""
    return addresses.v4[0][0] == 0 if addresses.v4 else not addresses.v6


def _about_addresses(rule: Rule, key: str, addresses: AddressRanges) -> Iterator[Problem]:
    if not addresses.v4 and not addresses.v6:
        yield _doubt(rule.where, key, "matches no address")
    if rule.section is Section.EGRESS and addresses.v4[:1] == ((0, 0),):
        yield _doubt(
            rule.where,
            f"{key}.to",
            "0.0.0.0 is one address, and a call to it is judged as one to 127.0.0.1: did you mean 0.0.0.0/0 or any?",
        )
