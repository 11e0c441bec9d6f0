# SPDX-License-Identifier: Apache-2.0
"""Policy sets made to meet the mistakes of classifiers: rules over aimed addresses and ports that touch.

A sheet is one policy set and the chains that are asked about it. Its first policy is of the kind that it is named
after, the others are small, so that chains have something behind and before. Must not know any verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from cgnetd.policy.ranges import merged
from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Endpoint,
    Hook,
    LocalAddresses,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Range,
    Redirect,
    Rewrite,
    Rule,
    Section,
    Subject,
    Where,
)
from support.aimed_addresses import both, crowd, few, scattered, spines, tree, twins, without, words

WHERE = Where("aimed.yaml", 1)
ERRNOS = (1, 13, 111, 113, 101, 110)
LAST_PORT = 65535
_BOTH = frozenset({Hook.CONNECT, Hook.SENDMSG})
_HOOKS = (frozenset({Hook.CONNECT}), frozenset({Hook.SENDMSG}), _BOTH, _BOTH)
_NAMED = tuple(protocol for protocol in Protocol if protocol is not Protocol.OTHER)
_REWRITABLE = frozenset({Protocol.TCP, Protocol.UDP})
_ACTIONS = (Action.ALLOW,) * 4 + (Action.DENY,) * 5 + (Action.PASS,) * 2
_PLAIN_PORTS = ((1, 1), (LAST_PORT, LAST_PORT), (1, LAST_PORT), (2, LAST_PORT - 1), (80, 80))


class Kind(NamedTuple):
    """What a policy's rules are made of: sets of addresses, how many rules (0: one a set, in the order of the sets),
    into how many ranges, which touch, all ports are cut, and the share of rules that look at addresses alone."""

    sets: Callable[[Random], list[AddressRanges]]
    rules: int
    cuts: int
    plain: float


class _Material(NamedTuple):
    """What one section's rules are drawn from."""

    section: Section
    kind: Kind
    pool: Sequence[AddressRanges]
    pieces: Sequence[Range]  # of ports


def _few(source: Random) -> list[AddressRanges]:
    return both(source, few(source.choice((1, 2, 4, source.randint(13, 20)))))


KINDS: Mapping[str, Kind] = {
    "spines": Kind(lambda source: both(source, spines), 0, 3, 0.8),
    "twins": Kind(lambda source: both(source, twins), 14, 6, 0.7),
    "words": Kind(lambda source: both(source, words), 14, 6, 0.6),
    "few": Kind(_few, 6, 8, 0.3),
    "tree": Kind(lambda source: both(source, tree(source.choice((60, 600)))), 20, 30, 0.3),
    "ports": Kind(_few, 80, 400, 0.05),
    "crowd": Kind(lambda source: both(source, crowd(source.choice((40, 600, 3000)))), 6, 4, 0.6),
    "borders": Kind(lambda source: both(source, crowd(1200, least=64)), 6, 4, 0.8),
    "hosts": Kind(lambda source: [one for _ in range(30) for one in both(source, few(4))], 0, 100, 0.2),
    "forest": Kind(lambda source: both(source, tree(5000)), 10, 10, 0.5),
    "dense": Kind(lambda source: both(source, crowd(source.choice((10_000, 30_000)))), 5, 3, 0.6),
    "scattered": Kind(lambda source: both(source, scattered(34_000)), 5, 3, 0.6),
}
_BESIDE = ("few", "ports", "tree")


@dataclass(frozen=True, slots=True)
class Sheet:
    """`chains` are indices of policies, in the order in which they are asked."""

    kind: str
    policies: PolicySet
    chains: tuple[tuple[int, ...], ...]
    default: Action

    def chain(self, number: int) -> tuple[Policy, ...]:
        return tuple(self.policies.policies[index] for index in self.chains[number])


def aimed_sheet(source: Random, kind: str) -> Sheet:
    """Four policies, the first of that kind; each is a chain by itself, and there are chains of several."""
    kinds = (kind, *_BESIDE)
    policies = tuple(aimed_policy(source, f"p{number}", KINDS[name]) for number, name in enumerate(kinds))
    ids = range(len(policies))
    mixed = [tuple(source.sample(ids, source.randint(2, len(policies)))) for _ in range(3)]
    chains = (*((number,) for number in ids), (0, 1), *mixed)
    return Sheet(kind, PolicySet(policies), chains, source.choice((Action.ALLOW, Action.DENY)))


def aimed_policy(source: Random, name: str, kind: Kind) -> Policy:
    pool, pieces = kind.sets(source), touching_ports(source, kind.cuts)
    # Two of three policies speak of egress, one of three of binds; what has no rules passes.
    sections = source.choice(((Section.EGRESS,), (Section.EGRESS, Section.BIND), (Section.EGRESS,), (Section.BIND,)))
    rules = {section: _rules(source, _Material(section, kind, pool, pieces)) for section in sections}
    return Policy(
        name=name,
        subject=Subject((Pattern(PatternKind.PATH, f"/{name}"),)),
        where=WHERE,
        audit=source.random() < 0.2,
        egress=rules.get(Section.EGRESS, ()),
        bind=rules.get(Section.BIND, ()),
        default_egress=source.choice((Action.PASS, Action.PASS, Action.ALLOW, Action.DENY)),
        default_bind=source.choice((Action.PASS, Action.PASS, Action.ALLOW, Action.DENY)),
    )


def touching_ports(source: Random, cuts: int) -> list[Range]:
    """All ports but 0, in ranges that touch, some of a single port, the first and the last one among them perhaps."""
    edges = (2, 3, 80, 81, 1024, 32768, 49152, LAST_PORT - 1, LAST_PORT)
    drawn = [source.choice(edges) if source.random() < 0.3 else source.randint(2, LAST_PORT) for _ in range(cuts)]
    firsts = sorted({1, *drawn, *(port + 1 for port in drawn if port < LAST_PORT and source.random() < 0.5)})
    return [(first, beyond - 1) for first, beyond in zip(firsts, [*firsts[1:], LAST_PORT + 1], strict=True)]


def _rules(source: Random, made_of: _Material) -> tuple[Rule, ...]:
    sets: list[AddressRanges | None] = [*made_of.pool]
    if made_of.kind.rules:
        # What is everywhere leaves nothing to the rules behind it, so it is the last ones' alone.
        shuffled = source.sample(made_of.pool, len(made_of.pool))
        sets = [_addresses(source, shuffled, number) for number in range(made_of.kind.rules - 2)]
        sets += [source.choice((None, made_of.pool[-1])), None]
    return tuple(_rule(source, made_of, number, addresses) for number, addresses in enumerate(sets))


def _addresses(source: Random, pool: Sequence[AddressRanges], number: int) -> AddressRanges:
    """The sets of the pool in turn, the very objects; now and then one less another."""
    chosen = pool[number % len(pool)]
    return without(chosen, source.choice(pool)) if source.random() < 0.15 else chosen


def _rule(source: Random, made_of: _Material, number: int, addresses: AddressRanges | None) -> Rule:
    section, kind, pool, pieces = made_of
    leads = Action.REDIRECT if section is Section.EGRESS else Action.REWRITE
    action = leads if source.random() < 0.1 else source.choice(_ACTIONS)
    is_plain = source.random() < kind.plain
    protocols = None if is_plain else source.choice((None, frozenset(source.sample(_NAMED, source.randint(1, 3)))))
    ports = None if is_plain else _ports(source, pieces)
    ephemeral = section is Section.BIND and ports is not None and source.random() < 0.4
    hooks = _BOTH if is_plain else source.choice(_HOOKS)
    return Rule(
        name=f"{section.value}[{number}]",
        section=section,
        action=action,
        where=WHERE,
        addresses=addresses,
        protocols=_REWRITABLE if action is leads else protocols,
        ports=() if ephemeral and source.random() < 0.5 else ports,
        ephemeral=ephemeral,
        hooks=hooks if section is Section.EGRESS else frozenset(),
        errno=source.choice(ERRNOS) if action is Action.DENY else 1,
        redirect=Redirect(*_targets(source, pool)) if action is Action.REDIRECT else None,
        rewrite=_rewrite(source, pool) if action is Action.REWRITE else None,
    )


def _ports(source: Random, pieces: Sequence[Range]) -> tuple[Range, ...] | None:
    """None, a range that everybody writes, or some of the pieces: those of other rules may touch them."""
    if source.random() < 0.2:
        return None
    if source.random() < 0.2:
        return (source.choice(_PLAIN_PORTS),)
    most = min(len(pieces), source.choice((1, 1, 4, 60)))
    return merged(source.sample(pieces, source.randint(1, most)))


def _targets(source: Random, pool: Sequence[AddressRanges]) -> tuple[Endpoint, Endpoint]:
    """Where some rule begins or ends, if any does: what is before in the order may deny that."""
    chosen = source.choice(pool)
    v4 = source.choice(source.choice(chosen.v4 or ((1, 1),)))
    v6 = source.choice(source.choice(chosen.v6 or ((1, 1),)))
    return Endpoint(4, v4, source.choice((0, 1, 80, LAST_PORT))), Endpoint(6, v6, source.choice((0, 1, LAST_PORT)))


def _rewrite(source: Random, pool: Sequence[AddressRanges]) -> Rewrite:
    v4, v6 = _targets(source, pool)
    port = source.choice((1, 80, LAST_PORT))
    return source.choice((Rewrite(LocalAddresses(v4.address, v6.address)), Rewrite(port=port)))
