# SPDX-License-Identifier: Apache-2.0
"""Doubts about what rewrites: targets that an earlier rule denies, and redirects that lead in circles.

What is told of one policy is so; of several it can only be that it may, because which of them govern one cgroup is not
known here. The search is bounded, and works with samples of calls. Must not know of files or text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from ..errors import Problem
from .endpoints import endpoint_text
from .journeys import Journey, journeys, onward
from .matching import UNIX, default_for, first_match, rules_for, says
from .select import could_share
from .types import Action, Endpoint, Flow, Policy, Rule, Section
from .unix_words import name_text

_MAX_TESTS = 200_000  # rules asked about sample calls, for all policies together
_MAX_HOPS = 8  # rules in a circle that is found


class Detours:
    """One search through the policies of a set."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies
        self._left = _MAX_TESTS
        self._circling: set[int] = set()  # identities of rules in circles that were told

    def about(self, policy: Policy, rule: Rule, where: tuple[str, int, int, str]) -> Iterator[Problem]:
        """Doubts about a rule that redirects or rewrites. `where` is its place: file, line, column and key."""
        reached = list(self._journeys(policy, rule))
        for message in (*self._denials(policy, reached), *self._circles(policy, rule, reached)):
            yield Problem(*where, message)

    def _journeys(self, policy: Policy, rule: Rule) -> Iterator[Journey]:
        """Samples of calls that reach the rule, past those before it in its policy."""
        own = policy.bind if rule.section is Section.BIND else policy.egress
        before = list(takewhile(lambda other: other is not rule, own))
        for journey in journeys(rule, before):
            if self._can_ask(len(before)) and first_match(before, journey.departure) is None:
                yield journey

    def _can_ask(self, tests: int) -> bool:
        self._left -= tests + 1
        return self._left > 0

    def _denials(self, policy: Policy, reached: Sequence[Journey]) -> Iterator[str]:
        own = next((found for journey in reached if (found := self._denial_within(policy, journey))), None)
        if own:
            yield own
        for other in self._policies:
            if other is not policy and _could_come_before(other, policy):
                found = next((said for journey in reached if (said := self._denial_by(other, journey))), None)
                if found:
                    yield found

    def _denial_within(self, policy: Policy, journey: Journey) -> str | None:
        arrival = journey.arrival
        before = list(takewhile(lambda other: other is not journey.rule, rules_for(policy, arrival)))
        found = first_match(before, arrival) if self._can_ask(len(before)) else None
        if found is None or says(found, arrival) is not Action.DENY:
            return None
        place = f"{found.name} (line {found.where.line})"
        return (
            f"its target {_text(journey)} is denied by {place}, which comes before it: so are the calls that it matches"
        )

    def _denial_by(self, other: Policy, journey: Journey) -> str | None:
        if not self._can_ask(2 * len(rules_for(other, journey.arrival))):
            return None
        if _verdict(other, journey.departure)[1] is not Action.PASS:
            return None
        rule, action = _verdict(other, journey.arrival)
        if action is not Action.DENY:
            return None
        named, where = (f"rule {rule.name}", rule.where) if rule else ("its default", other.default_where)
        return (
            f'its target {_text(journey)} may be denied by policy "{other.name}", {named} ({where}), '
            "where that policy is asked before this one"
        )

    def _circles(self, policy: Policy, rule: Rule, reached: Sequence[Journey]) -> Iterator[str]:
        if rule.redirect is None or id(rule) in self._circling:
            return
        for journey in reached:
            hops = self._way_back(policy, rule, journey)
            if hops:
                self._circling.update(id(hop.rule) for _, hop in hops)
                yield _circle_text(hops)
                return

    def _way_back(self, policy: Policy, rule: Rule, first: Journey) -> list[tuple[Policy, Journey]] | None:
        """The shortest way from the rule by its target and other redirects back to the rule; None: it is not found."""
        ways: list[list[tuple[Policy, Journey]]] = [[(policy, first)]]
        met = {id(rule)}
        for way in ways:  # grows as it is walked
            for other, found in self._onward(way[-1][1].arrival):
                if found.rule is rule:
                    return way
                if id(found.rule) not in met and len(way) < _MAX_HOPS:
                    met.add(id(found.rule))
                    ways.append([*way, (other, found)])
        return None

    def _onward(self, call: Flow) -> Iterator[tuple[Policy, Journey]]:
        """The redirects that each policy by itself has for a call."""
        for policy in self._policies:
            rules = rules_for(policy, call)
            if policy.audit or not self._can_ask(len(rules)):
                continue
            rule = first_match(rules, call)
            if rule and rule.redirect:
                yield from ((policy, found) for found in onward(rule, call))


def _could_come_before(other: Policy, policy: Policy) -> bool:
    """Whether there can be a cgroup for which `other` is asked, and decides, before `policy`."""
    if other.audit or other.tier > policy.tier or not could_share(other.subject, policy.subject):
        return False
    same_place = other.tier == policy.tier and set(other.subject.match) == set(policy.subject.match)
    return other.order < policy.order if same_place else True


def _verdict(policy: Policy, call: Flow) -> tuple[Rule | None, Action]:
    rule = first_match(rules_for(policy, call), call)
    return rule, says(rule, call) if rule else default_for(policy, call)


def _text(journey: Journey) -> str:
    """Where it leads; without a port that was only a sample."""
    call = journey.arrival
    if call.family == UNIX:
        return name_text(call.name)
    return endpoint_text(Endpoint(call.family, call.address, 0 if journey.is_of_any_port else call.port))


def _circle_text(hops: Sequence[tuple[Policy, Journey]]) -> str:
    (policy, first), *others = hops
    if not others:
        return (
            f"leads back to itself: it matches its own target {_text(first)}, so that a program there that "
            f'policy "{policy.name}" governs meets itself'
        )
    steps = [f'{hop.rule.name} of policy "{of.name}" ({hop.rule.where}) to {_text(hop)}' for of, hop in others]
    return f"leads in a circle: to {_text(first)}, from there by {', then by '.join(steps)}, and back"
