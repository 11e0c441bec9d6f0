# SPDX-License-Identifier: Apache-2.0
"""What is accepted but hardly meant: rules that never decide, sets that nobody uses, subjects that are empty.

Every doubt is true when told; not every one there is will be told, because the search is bounded: it must cost next to
nothing for ten thousand rules. Must not know of files or text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ..errors import Problem
from .ranges import contains, size
from .types import Action, AddressRanges, AddressSet, Policy, Rule, Section, Where

_MAX_BROAD_RULES = 8  # earlier rules for more than one address that a rule is compared with
_MAX_COMPARED_RANGES = 64  # of a rule that is compared with another one by its addresses


def doubts(policies: Sequence[Policy], sets: Sequence[AddressSet], used_sets: Collection[str]) -> list[Problem]:
    """Warnings about a policy set that is otherwise right, sorted."""
    found: list[Problem] = []
    for policy in policies:
        found += _about_policy(policy)
        found += _about_rules(policy.egress)
        found += _about_rules(policy.bind)
    for address_set in sets:
        if address_set.name not in used_sets:
            found.append(_doubt(address_set.where, "metadata.name", f'set "{address_set.name}" is used by no rule'))
        if size(address_set.ranges) == 0:
            found.append(_doubt(address_set.where, "spec", f'set "{address_set.name}" holds no address'))
    return sorted(found)


def _doubt(where: Where, key: str, message: str) -> Problem:
    return Problem(where.file, where.line, where.column, key, message)


def _about_policy(policy: Policy) -> Iterator[Problem]:
    has_default = {policy.default_egress, policy.default_bind} != {Action.PASS}
    if not policy.egress and not policy.bind and not has_default:
        yield _doubt(policy.where, "spec", f'policy "{policy.name}" decides nothing: it has no rules and no default')
    if set(policy.subject.match) <= set(policy.subject.exclude):
        yield _doubt(policy.where, "spec.subject", f'policy "{policy.name}" governs nothing: `not` takes all away')


def _about_rules(rules: Sequence[Rule]) -> Iterator[Problem]:
    earlier = _Earlier()
    for index, rule in enumerate(rules):
        key = f"spec.{rule.section.value}[{index}]"
        shadowing = earlier.wider_than(rule)
        if shadowing:
            place = f"{shadowing.name} (line {shadowing.where.line})"
            yield _doubt(rule.where, key, f"is never reached: {place} matches all that it matches")
        else:
            earlier.add(rule)
        if rule.addresses is not None:
            yield from _about_addresses(rule, key, rule.addresses)
        if rule.action is Action.PASS and rule.log:
            yield _doubt(rule.where, f"{key}.log", "has no effect: a pass decides nothing")


def _about_addresses(rule: Rule, key: str, addresses: AddressRanges) -> Iterator[Problem]:
    if not addresses.v4 and not addresses.v6:
        yield _doubt(rule.where, key, "matches no address")
    if rule.section is Section.EGRESS and addresses.v4[:1] == ((0, 0),):
        yield _doubt(
            rule.where,
            f"{key}.to",
            "0.0.0.0 is one address, and a call to it is judged as one to 127.0.0.1: did you mean 0.0.0.0/0 or any?",
        )


class _Earlier:
    """Rules already seen, so that one that matches all of a later rule is found without comparing every pair."""

    def __init__(self) -> None:
        self._same_addresses: dict[int | None, Rule] = {}  # by identity: the first rule with these addresses
        self._broad: list[Rule] = []

    def add(self, rule: Rule) -> None:
        self._same_addresses.setdefault(_identity(rule.addresses), rule)
        if len(self._broad) < _MAX_BROAD_RULES and _is_broad(rule.addresses):
            self._broad.append(rule)

    def wider_than(self, rule: Rule) -> Rule | None:
        """An earlier rule that matches every call that `rule` matches, if the search finds one."""
        same = self._same_addresses.get(_identity(rule.addresses))
        candidates = (same, *self._broad) if same else self._broad
        return next((earlier for earlier in candidates if _is_wider(earlier, rule)), None)


def _identity(addresses: AddressRanges | None) -> int | None:
    return None if addresses is None else id(addresses)


def _is_broad(addresses: AddressRanges | None) -> bool:
    if addresses is None or size(addresses) > 1:
        return True
    return any(first != last for first, last in (*addresses.v4, *addresses.v6))


def _is_wider(earlier: Rule, rule: Rule) -> bool:
    return (
        earlier.hooks >= rule.hooks
        and (earlier.protocols is None or (rule.protocols is not None and earlier.protocols >= rule.protocols))
        and _has_ports_of(earlier, rule)
        and _has_addresses_of(earlier.addresses, rule.addresses)
    )


def _has_ports_of(earlier: Rule, rule: Rule) -> bool:
    if earlier.ports is None:
        return True
    if rule.ports is None or (rule.ephemeral and not earlier.ephemeral):
        return False
    return contains(earlier.ports, rule.ports)


def _has_addresses_of(earlier: AddressRanges | None, addresses: AddressRanges | None) -> bool:
    if earlier is None or earlier is addresses:
        return True
    if addresses is None or size(addresses) > _MAX_COMPARED_RANGES:
        return False
    return contains(earlier.v4, addresses.v4) and contains(earlier.v6, addresses.v6)
