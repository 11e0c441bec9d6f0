# SPDX-License-Identifier: Apache-2.0
"""Rules that are never reached, because an earlier one of the same list matches all that they match.

Every find is right; the search is bounded, so that not every such rule is found. Must not know of policies or text.
"""

from __future__ import annotations

from .names import ANY
from .ranges import contains, size
from .types import AddressRanges, Rule

_MAX_BROAD_RULES = 8  # earlier rules for more than one address, or on names, that a rule is compared with
_MAX_COMPARED_RANGES = 64  # of a rule that is compared with another one by its addresses


class Earlier:
    """Rules already seen, so that one that matches all of a later rule is found without comparing every pair."""

    def __init__(self) -> None:
        self._same: dict[object, Rule] = {}  # by names or identity of the addresses: the first rule with these
        self._broad: list[Rule] = []

    def add(self, rule: Rule) -> None:
        self._same.setdefault(_identity(rule), rule)
        if len(self._broad) < _MAX_BROAD_RULES and _is_broad(rule):
            self._broad.append(rule)

    def wider_than(self, rule: Rule) -> Rule | None:
        """An earlier rule that matches every call that `rule` matches, if the search finds one."""
        same = self._same.get(_identity(rule))
        candidates = (same, *self._broad) if same else self._broad
        if not candidates:
            return None
        return next((earlier for earlier in candidates if _is_wider(earlier, rule)), None)


def _identity(rule: Rule) -> object:
    return rule.unix or (None if rule.addresses is None else id(rule.addresses))


def _is_broad(rule: Rule) -> bool:
    addresses = rule.addresses
    if rule.unix is not None or addresses is None or size(addresses) > 1:
        return True
    for first, last in addresses.v4 or addresses.v6:
        return first != last
    return False


def _is_wider(earlier: Rule, rule: Rule) -> bool:
    return (  # first what tells most rules apart
        _has_addresses_of(earlier.addresses, rule.addresses)
        and _has_ports_of(earlier, rule)
        and _has_names_of(earlier, rule)
        and earlier.hooks >= rule.hooks
        and _holds(earlier.protocols, rule.protocols)
        and _holds(earlier.families, rule.families)
        and _holds(earlier.types, rule.types)
    )


def _holds(outer: frozenset[object] | None, inner: frozenset[object] | None) -> bool:
    """Whether one left-out or given set of words holds another; left out is all."""
    return outer is None or (inner is not None and outer >= inner)


def _has_names_of(earlier: Rule, rule: Rule) -> bool:
    if earlier.unix is None or rule.unix is None:
        return earlier.unix is rule.unix
    return set(earlier.unix) >= set(rule.unix) or set(earlier.unix) >= set(ANY)


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
