# SPDX-License-Identifier: Apache-2.0
"""Calls at the edges of what the rules of a sheet name: addresses and ports just inside, just outside, at the ends.

Must not know any verdict.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import NamedTuple

from cgnetd.policy.ranges import EVERYTHING
from cgnetd.policy.types import Flow, Hook, Policy, Protocol, Range, Rule
from support.aimed_addresses import BITS
from support.aimed_policies import LAST_PORT, Sheet

_BIND_HOOKS = (Hook.BIND, Hook.POST_BIND)
_END_PORTS = (0, 1, LAST_PORT)


class AimedCall(NamedTuple):
    """`task` and `socket` are numbers of the sheet's chains; None: the socket is of the task's cgroup."""

    flow: Flow
    task: int
    socket: int | None = None


def aimed_calls(source: Random, sheet: Sheet, count: int) -> Iterator[AimedCall]:
    """So many calls: up to three of four to ranges of the first policy, each at most once, asked of that policy alone;
    the others to any and of all chains."""
    alone = list(_spans_of(sheet.policies.policies[0]))
    behind = list(accumulate(len(spans) for _, _, spans in alone))
    order = source.sample(range(behind[-1]), min(behind[-1], count * 3 // 4))
    for number in order:
        at = bisect_right(behind, number)
        rule, family, spans = alone[at]
        yield AimedCall(_flow(source, rule, family, spans[number - behind[at]]), 0)
    named = [list(_spans_of(policy)) for policy in sheet.policies.policies]
    for _ in range(count - len(order)):
        task = source.randrange(len(sheet.chains))
        socket = source.randrange(len(sheet.chains)) if source.random() < 0.15 else None
        rule, family, spans = source.choice(named[source.choice(sheet.chains[task])])
        yield AimedCall(_any_flow(source, rule, family, source.choice(spans)), task, socket)


def _spans_of(policy: Policy) -> Iterator[tuple[Rule, int, tuple[Range, ...]]]:
    """The ranges of each rule, by family; all addresses where the rule says none."""
    for rule in (*policy.egress, *policy.bind):
        addresses = rule.addresses or EVERYTHING
        for family, spans in ((4, addresses.v4), (6, addresses.v6)):
            if spans:
                yield rule, family, spans


def _any_flow(source: Random, rule: Rule, family: int, span: Range) -> Flow:
    """Mostly at a range of a rule; sometimes of a socket whose calls no hook sees."""
    if source.random() < 0.03:
        raw = source.random() < 0.3
        return Flow(Hook.SOCKET, source.choice(list(Protocol)), family, 0, 0, raw=raw)
    return _flow(source, rule, family, span)


def _flow(source: Random, rule: Rule, family: int, span: Range) -> Flow:
    hook = source.choice(sorted(rule.hooks or _BIND_HOOKS, key=lambda hook: hook.value))
    protocol = source.choice(list(Protocol))
    if rule.protocols is not None and source.random() < 0.9:
        protocol = source.choice(sorted(rule.protocols, key=lambda protocol: protocol.value))
    address = edge_address(source, family, span)
    return Flow(hook, protocol, family, address, _port(source, hook, rule), v6_only=source.random() < 0.5)


def edge_address(source: Random, family: int, span: Range) -> int:
    """Of a range: an end of it or what is beside it, anything in it, or an end with all behind some 16 bits changed."""
    first, last = span
    end = source.choice(span)
    low = BITS[family] - 16 * source.randrange(1, BITS[family] // 16)
    mask = (1 << low) - 1
    near = (first - 1, first, first + 1, last - 1, last, last + 1, source.randint(first, last))
    far = (end & ~mask, end | mask, end & ~mask | source.getrandbits(low), end ^ 1 << low, end + (1 << low))
    address = source.choice(near if source.random() < 0.75 else far)
    return min(max(address, 0), (1 << BITS[family]) - 1)


def _port(source: Random, hook: Hook, rule: Rule) -> int:
    """At an end of one of the rule's ranges, or of all ports."""
    if rule.ports and source.random() < 0.85:
        port = source.choice(source.choice(rule.ports)) + source.choice((-1, 0, 0, 1))
    else:
        port = source.choice((*_END_PORTS, source.randint(1, LAST_PORT)))
    if hook is Hook.BIND and source.random() < 0.2:
        port = 0
    return min(max(port, int(hook is Hook.POST_BIND)), LAST_PORT)
