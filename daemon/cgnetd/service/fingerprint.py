# SPDX-License-Identifier: Apache-2.0
"""What rules and policies match and do, in one number each: to see that one changed without keeping the old set.

Numbers are comparable within one process only. Must not know what is done with a change.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from cgnetd.datapath import abi
from cgnetd.datapath.rules import default_rules
from cgnetd.policy.types import AddressRanges, Policy, PolicySet, Redirect, Rule

_MASK = 2**64 - 1
RuleKey = tuple[str, str, str]  # policy, section, rule: the same in every generation


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """`rules` by rule id, 0 for those that are nobody's; `policies` by policy id."""

    rules: array[int] = field(default_factory=lambda: array("Q"))
    policies: array[int] = field(default_factory=lambda: array("Q"))


class KnownFingerprints:
    """Those of the policies of the last set, so that policies that are the same objects are not gone through again."""

    def __init__(self) -> None:
        self._policies: dict[str, tuple[Policy, tuple[int, ...], int]] = {}  # its rules, and itself

    def of(self, policy_set: PolicySet) -> Fingerprints:
        """Of a set; ids as its index has them."""
        ranges: dict[int, int] = {}  # rules share their address ranges, which can be long
        known, self._policies = self._policies, {}
        rules, policies = array("Q", [0] * abi.RULE_FIRST), array("Q")
        for policy in policy_set.policies:
            found = known.get(policy.name)
            if found is None or found[0] is not policy:
                found = (policy, _of_rules(policy, ranges), hash((policy.subject, policy.tcp)) & _MASK)
            self._policies[policy.name] = found
            rules.extend(found[1])
            policies.append(found[2])
        return Fingerprints(rules, policies)


def fingerprints(policy_set: PolicySet) -> Fingerprints:
    """Of a set, by the ids that compiling gives its rules and policies."""
    return KnownFingerprints().of(policy_set)


def _of_rules(policy: Policy, ranges: dict[int, int]) -> tuple[int, ...]:
    """In the order of ids; 0 for defaults."""
    own = (*policy.egress, *policy.bind, *policy.socket)
    return (*(_of_rule(rule, ranges) for rule in own), *(0 for _ in default_rules(policy)))


def _of_rule(rule: Rule, ranges: dict[int, int]) -> int:
    """Of everything but the name, the place and what the index tells already."""
    matched = (rule.protocols, rule.ports, rule.ephemeral, rule.hooks, rule.unix, rule.families, rule.types)
    done = (rule.redirect and _of_redirect(rule.redirect), rule.source, rule.rewrite, rule.privileged, rule.options)
    return hash((_of_ranges(rule.addresses, ranges), matched, done)) & _MASK


def _of_ranges(found: AddressRanges | None, known: dict[int, int]) -> int:
    if found is None:
        return 0
    number = known.get(id(found))
    if number is None:
        number = known[id(found)] = hash((found.v4, found.v6))
    return number


def _of_redirect(redirect: Redirect) -> int:
    return hash((redirect.v4, redirect.v6, redirect.name, redirect.service.name if redirect.service else ""))
