# SPDX-License-Identifier: Apache-2.0
"""Random policy sets, cgroup trees and flows for property tests.

Policies are hypothesis strategies (they shrink); flows are drawn from a seeded generator, hundreds for one policy set,
near the edges of its addresses and ports, where mistakes live. Must not know any verdict.
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st

from cgnetd.policy.ranges import subtracted, union
from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Flow,
    Hook,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Range,
    Rule,
    Section,
    Subject,
    Tier,
    Where,
)

NAMES = ("a", "b", "ab", "a.service", "b.service", "x@1.service", "x@2.service", "c.slice", "user@7.service", "s.scope")
_GLOBS = ("*", "a*", "*.service", "x@*.service", "[ab]", "[!a]", "?", "user@7.service", "c.slice", "a.service")
_PATHS = ("/", "/**", "/a", "/a/**", "/*/b", "/**/b", "/a/**/a.service", "/c.slice/*", "/**/x@?.service/**")
_PREFIXES = (
    (4, 0x0A000000, 8),
    (4, 0x0A010000, 16),
    (4, 0x0A010200, 24),
    (4, 0x0A010203, 32),
    (4, 0x7F000000, 8),
    (4, 0, 0),
    (4, 0, 32),
    (4, 0xC0000200, 24),
    (6, 0x20010DB8 << 96, 32),
    (6, 0x20010DB8_00010000 << 64, 48),
    (6, (0x20010DB8 << 96) + 1, 128),
    (6, 1, 128),
    (6, 0, 128),
    (6, 0, 0),
    (6, 0xFE80 << 112, 10),
)
_PORTS: tuple[Range, ...] = ((1, 1), (53, 53), (80, 90), (85, 443), (1024, 65535), (40000, 40999), (65535, 65535))
ERRNOS = (1, 13, 111, 113, 101, 110)
_WHERE = Where("random.yaml", 1)


def _ranges(prefix: tuple[int, int, int]) -> AddressRanges:
    family, start, length = prefix
    span = ((start, start + (1 << ((32 if family == 4 else 128) - length)) - 1),)
    return AddressRanges(v4=span) if family == 4 else AddressRanges(v6=span)


def _less(all_of: AddressRanges, holes: AddressRanges) -> AddressRanges:
    return AddressRanges(subtracted(all_of.v4, holes.v4), subtracted(all_of.v6, holes.v6))


_one_range = st.sampled_from(_PREFIXES).map(_ranges)
_addresses = st.one_of(
    st.none(),
    st.lists(_one_range, min_size=1, max_size=4).map(union),
    st.tuples(st.lists(_one_range, min_size=1, max_size=2).map(union), _one_range).map(lambda pair: _less(*pair)),
)
_protocols = st.one_of(
    st.none(), st.frozensets(st.sampled_from([p for p in Protocol if p is not Protocol.OTHER]), min_size=1, max_size=3)
)
_ports = st.one_of(st.none(), st.lists(st.sampled_from(_PORTS), min_size=1, max_size=2, unique=True))
_action = st.sampled_from(Action)
_default = st.sampled_from(Action)


def _merged_ports(ports: list[Range] | None) -> tuple[Range, ...] | None:
    if ports is None:
        return None
    merged: list[Range] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


@st.composite
def _rules(draw: st.DrawFn, section: Section, errnos: tuple[int, ...]) -> tuple[Rule, ...]:
    made = []
    for number in range(draw(st.integers(0, 5))):
        action = draw(_action)
        ports = _merged_ports(draw(_ports))
        ephemeral = section is Section.BIND and draw(st.booleans())
        hooks = st.sampled_from([{Hook.CONNECT}, {Hook.SENDMSG}, {Hook.CONNECT, Hook.SENDMSG}])
        made.append(
            Rule(
                name=f"{section.value}-{number}",
                section=section,
                action=action,
                where=_WHERE,
                addresses=draw(_addresses),
                protocols=draw(_protocols),
                ports=() if ephemeral and ports is None else ports,
                ephemeral=ephemeral,
                hooks=frozenset(draw(hooks)) if section is Section.EGRESS else frozenset(),
                errno=draw(st.sampled_from(errnos)) if action is Action.DENY else 1,
                log=False,
            )
        )
    return tuple(made)


_pattern = st.one_of(
    st.builds(Pattern, st.sampled_from([PatternKind.UNIT, PatternKind.USER_UNIT]), st.sampled_from(_GLOBS)),
    st.builds(Pattern, st.just(PatternKind.PATH), st.sampled_from(_PATHS)),
)
_subject = st.builds(
    Subject,
    st.lists(_pattern, min_size=1, max_size=3).map(tuple),
    st.one_of(st.just(()), st.lists(_pattern, min_size=1, max_size=1).map(tuple)),
)


@st.composite
def policy_sets(draw: st.DrawFn, *, max_policies: int = 6, errnos: tuple[int, ...] = ERRNOS) -> PolicySet:
    """A policy set as `parse` would give it: sorted, names unique. `errnos`: those of rules that deny."""
    policies = [
        Policy(
            name=f"p{number}",
            subject=draw(_subject),
            where=_WHERE,
            tier=draw(st.sampled_from(Tier)),
            priority=draw(st.sampled_from((0, 500, 1000))),
            audit=draw(st.integers(0, 3)) == 0,
            egress=draw(_rules(Section.EGRESS, errnos)),
            bind=draw(_rules(Section.BIND, errnos)),
            default_egress=draw(_default),
            default_bind=draw(_default),
        )
        for number in range(draw(st.integers(1, max_policies)))
    ]
    return PolicySet(tuple(sorted(policies, key=lambda policy: policy.order)))


def random_path(source: random.Random, *, depth: int = 4) -> tuple[str, ...]:
    return tuple(source.choice(NAMES) for _ in range(source.randint(0, depth)))


def random_flow(source: random.Random) -> Flow:
    """A flow near the edges of the prefixes and ports that rules are made of."""
    hook = source.choice((*(h for h in Hook if h is not Hook.SOCKET), Hook.CONNECT, Hook.SENDMSG))
    if source.random() < 0.1:
        raw = source.random() < 0.3
        protocol = (
            Protocol.OTHER if raw else source.choice([p for p in Protocol if p not in (Protocol.TCP, Protocol.UDP)])
        )
        return Flow(Hook.SOCKET, protocol, source.choice((4, 6)), 0, 0, raw=raw)
    family, address = _random_address(source)
    port = source.choice((1, 53, 79, 80, 90, 91, 443, 444, 1023, 1024, 40000, 41000, 65535, source.randint(1, 65535)))
    if hook is Hook.BIND and source.random() < 0.3:
        port = 0
    flow = Flow(hook, source.choice(list(Protocol)), family, address, port)
    binds_any = hook in (Hook.BIND, Hook.POST_BIND) and family == 6 and address == 0
    return replace(flow, v6_only=source.random() < 0.5) if binds_any else flow


def _random_address(source: random.Random) -> tuple[int, int]:
    family, start, length = source.choice(_PREFIXES)
    bits = 32 if family == 4 else 128
    last = start + (1 << (bits - length)) - 1
    edge = source.choice((start - 1, start, start + 1, last - 1, last, last + 1, source.randint(start, last)))
    return family, min(max(edge, 0), (1 << bits) - 1)
