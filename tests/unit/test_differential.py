# SPDX-License-Identifier: Apache-2.0
"""The compiled image says what the reference semantics say: random policies, calls and trees of cgroups."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import ImageReader, Verdict
from cgnetd.datapath.label import Label, child_label, root_label
from cgnetd.policy.evaluate import evaluate, judge
from cgnetd.policy.select import select
from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Decision,
    Flow,
    Hook,
    Outcome,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Rule,
    Section,
    Subject,
    Tier,
    Where,
)

SETS = int(os.environ.get("CGNETD_DIFFERENTIAL_SETS", "100"))
FLOWS_A_SET = 100
WHERE = Where("test.yaml", 1)
LAST = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
LANDMARKS = {
    4: (0, 1, 0x0A000000, 0x0A0000FF, 0x0AFFFFFF, 0x7F000001, 0x80000000, 0xC0A80101, LAST[4]),
    6: (0, 1, 1 << 64, (1 << 64) - 1, 0x20010DB8 << 96, (0x20010DB8 << 96) + 7, 1 << 127, LAST[6]),
}
PORTS = (1, 22, 53, 80, 443, 444, 1024, 8000, 65535)

Draw = Any


def addresses_near(family: int) -> st.SearchStrategy[int]:
    near = st.tuples(st.sampled_from(LANDMARKS[family]), st.integers(-2, 2)).map(sum)
    return st.one_of(near, st.integers(0, LAST[family])).map(lambda a: min(max(a, 0), LAST[family]))


def ranges(points: list[int]) -> tuple[tuple[int, int], ...]:
    """Sorted, disjoint ranges that do not touch, from any points."""
    pairs = sorted(points)
    found: list[tuple[int, int]] = []
    for first, last in zip(pairs[::2], pairs[1::2], strict=False):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def address_ranges() -> st.SearchStrategy[AddressRanges]:
    v4 = st.lists(addresses_near(4), max_size=6).map(ranges)
    v6 = st.lists(addresses_near(6), max_size=6).map(ranges)
    everything = st.just(AddressRanges(((0, LAST[4]),), ((0, LAST[6]),)))
    return st.one_of(st.builds(AddressRanges, v4, v6), everything)


def port_ranges() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    return st.lists(st.sampled_from(PORTS), min_size=2, max_size=6).map(ranges)


@st.composite
def rules(draw: Draw, section: Section, pool: list[AddressRanges]) -> Rule:
    ports = draw(st.none() | port_ranges())
    ephemeral = section is Section.BIND and ports is not None and draw(st.booleans())
    hooks = frozenset({Hook.CONNECT, Hook.SENDMSG})
    if section is Section.EGRESS:
        hooks = draw(st.just(hooks) | st.sampled_from([frozenset({hook}) for hook in hooks]))
    return Rule(
        name="rule",
        section=section,
        action=draw(st.sampled_from(Action)),
        where=WHERE,
        addresses=draw(st.none() | st.sampled_from(pool)),
        protocols=draw(st.none() | st.frozensets(st.sampled_from(Protocol), min_size=1)),
        ports=() if ephemeral and draw(st.booleans()) else ports,
        ephemeral=ephemeral,
        hooks=hooks if section is Section.EGRESS else frozenset(),
        errno=draw(st.sampled_from([1, 13, 111])),
    )


NAMES = ("a", "ab", "b", "a.service", "ab.service", "web@1.service", "x.slice", "user@1000.service", "user@x.service")
GLOBS = ("a", "?", "a*", "*b", "*", "*.service", "[ab]", "[!a]*", "a.service", "web@*.service", "*e*1*", "*a*b", "??*")
PATHS = (
    "/",
    "/**",
    "/a",
    "/a/**",
    "/*/b",
    "/**/b",
    "/a/**/*.service",
    "/**/a/**",
    "/x.slice/*",
    "/*/**",
    "/**/**",
    "/a*/?",
)
EVERYWHERE = Subject((Pattern(PatternKind.PATH, "/"),))


def patterns() -> st.SearchStrategy[Pattern]:
    units = st.builds(Pattern, st.sampled_from([PatternKind.UNIT, PatternKind.USER_UNIT]), st.sampled_from(GLOBS))
    return units | st.builds(Pattern, st.just(PatternKind.PATH), st.sampled_from(PATHS))


def subjects() -> st.SearchStrategy[Subject]:
    return st.builds(
        Subject,
        st.lists(patterns(), min_size=1, max_size=3).map(tuple),
        st.lists(patterns(), max_size=1).map(tuple),
    )


def named(unnamed: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules with names as the language gives them, each one its own."""
    return tuple(replace(rule, name=f"{rule.section.value}[{number}]") for number, rule in enumerate(unnamed))


@st.composite
def policy_sets(draw: Draw, *, with_rules: bool = True, max_size: int = 5) -> PolicySet:
    pool = draw(st.lists(address_ranges(), min_size=1, max_size=4)) if with_rules else []
    egress = st.lists(rules(Section.EGRESS, pool), max_size=6).map(tuple) if with_rules else st.just(())
    bind = st.lists(rules(Section.BIND, pool), max_size=4).map(tuple) if with_rules else st.just(())
    policies = [
        Policy(
            name=f"p{number}",
            subject=draw(st.just(EVERYWHERE) | subjects() if with_rules else subjects()),
            where=WHERE,
            tier=draw(st.sampled_from(Tier)),
            priority=draw(st.sampled_from([1, 500])),
            audit=draw(st.booleans()),
            egress=named(draw(egress)),
            bind=named(draw(bind)),
            default_egress=draw(st.just(Action.PASS) | st.sampled_from(Action)),
            default_bind=draw(st.just(Action.PASS) | st.sampled_from(Action)),
        )
        for number in range(draw(st.integers(1, max_size)))
    ]
    return PolicySet(tuple(sorted(policies, key=lambda policy: policy.order)))


def flow(policy_set: PolicySet, random: Random) -> Flow:
    """A call that is likely to be at the edge of some rule."""
    hook, protocol, family = random.choice(list(Hook)), random.choice(list(Protocol)), random.choice([4, 6])
    if hook is Hook.SOCKET:
        return Flow(hook, protocol, family, 0, 0, raw=random.random() < 0.5)
    rules = [rule for policy in policy_set.policies for rule in (*policy.egress, *policy.bind)]
    held = [rule.addresses for rule in rules if rule.addresses]
    edges = [edge for found in held for both in (found.v4 if family == 4 else found.v6) for edge in both]
    address = random.choice([0, random.randint(0, LAST[family]), *edges]) + random.choice([-1, 0, 0, 1])
    port = random.choice(PORTS) + random.choice([-1, 0, 0, 1])
    if hook is not Hook.POST_BIND and random.random() < 0.2:
        port = 0
    in_range = min(max(address, 0), LAST[family]), min(max(port, int(hook is Hook.POST_BIND)), 65535)
    return Flow(hook, protocol, family, *in_range, v6_only=random.random() < 0.5)


def label_of(reader: ImageReader, path: tuple[str, ...]) -> Label:
    label = root_label(reader)
    for name in path:
        label = child_label(reader, label, os.fsencode(name))
    return label


def expected(decision: Decision, section: str, image: Image) -> Verdict:
    """A reference decision in the image's terms."""
    ids = {(ref.policy, ref.section, ref.rule): ref.rule_id for ref in image.index.refs}

    def rule_id(outcome: Outcome) -> int:
        if outcome.policy is None:
            return 0
        name = outcome.rule.name if outcome.rule else f"default.{section}"
        return ids[(outcome.policy.name, section, name)]

    enforced, shadow = decision.enforced, decision.shadow
    denied, shadow_denied = (outcome.action is Action.DENY for outcome in (enforced, shadow))
    return Verdict(denied, enforced.errno, rule_id(enforced), rule_id(shadow), shadow_denied, by_socket=False)


TREE_PATHS = st.lists(st.sampled_from(NAMES) | st.text("ab.1@éx", min_size=1, max_size=5), max_size=5).map(tuple)


@settings(max_examples=SETS, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    policy_sets(),
    st.sampled_from([Action.ALLOW, Action.DENY]),
    TREE_PATHS,
    TREE_PATHS,
    st.randoms(use_true_random=False),
)
def test_the_image_judges_as_the_reference_does(
    policy_set: PolicySet, default_action: Action, task: tuple[str, ...], socket: tuple[str, ...], random: Random
) -> None:
    image = compile_image(policy_set, default_action=default_action, generation=1)
    reader = ImageReader(image.cells)
    chains = [select(policy_set, path) for path in (task, socket)]
    labels = [label_of(reader, path) for path in (task, socket)]
    seeded = Random(random.getrandbits(32))
    for _ in range(FLOWS_A_SET):
        call = flow(policy_set, seeded)
        section = "bind" if call.hook in (Hook.BIND, Hook.POST_BIND) else "egress"
        verdict = reader.judge(labels[0], labels[1], call)
        reference = expected(judge(chains[0], chains[1], call, default_action), section, image)
        assert replace(verdict, by_socket=False) == reference, call
        told = [(step.policy_id, step.action, step.audit) for step in reader.explain(labels[0], call)]
        walked = evaluate(chains[0], call, default_action).steps
        assert told == [(policy_set.policies.index(s.policy), s.action, s.audit) for s in walked], call


@settings(max_examples=SETS, deadline=None, suppress_health_check=list(HealthCheck))
@given(policy_sets(with_rules=False, max_size=12), st.lists(TREE_PATHS, min_size=20, max_size=20))
def test_labels_hold_the_chains_that_the_reference_selects(policy_set: PolicySet, paths: list[tuple[str, ...]]) -> None:
    image = compile_image(policy_set, default_action=Action.ALLOW, generation=1)
    reader = ImageReader(image.cells)
    for path in paths:
        label = label_of(reader, path)
        assert not label.overflow
        names = tuple(image.index.policies[policy_id].name for policy_id in label.policies)
        assert names == tuple(policy.name for policy in select(policy_set, path)), path
