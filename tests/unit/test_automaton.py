# SPDX-License-Identifier: Apache-2.0
"""The subject automaton accepts what the reference matcher matches, and refuses what would grow without end."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnetd.datapath.automaton import Automaton, Row, build_automaton
from cgnetd.errors import PolicyError
from cgnetd.policy.select import matches
from cgnetd.policy.types import Pattern, PatternKind, Policy, Subject, Tier, Where
from support.work import work

WHERE = Where("subjects.yaml", 7)


def unit(glob: str) -> Pattern:
    return Pattern(PatternKind.UNIT, glob)


def user_unit(glob: str) -> Pattern:
    return Pattern(PatternKind.USER_UNIT, glob)


def path(glob: str) -> Pattern:
    return Pattern(PatternKind.PATH, glob)


def policy(*match: Pattern, exclude: tuple[Pattern, ...] = (), name: str = "p", tier: Tier = Tier.NORMAL) -> Policy:
    return Policy(name, Subject(match, exclude), WHERE, tier=tier)


def run(rows: list[Row], names: tuple[str, ...]) -> Row:
    """The row of the state after a path."""
    state = 0
    for byte in b"".join(b"/" + os.fsencode(name) for name in names):
        state = dict(rows[state].edges).get(byte, rows[state].default)
    return rows[state]


@pytest.mark.parametrize(
    ("pattern", "names", "matching"),
    [
        (path("/"), (), True),
        (path("/"), ("a",), False),
        (path("/**"), (), False),
        (path("/**"), ("a",), True),
        (path("/**"), ("a", "b", "c"), True),
        (path("/a/**"), ("a",), False),
        (path("/a/**"), ("a", "b", "c"), True),
        (path("/**/b"), ("b",), True),
        (path("/**/b"), ("a", "b", "b"), True),
        (path("/**/b"), ("a", "b", "c"), False),
        (path("/*/b"), ("a", "b"), True),
        (path("/*/b"), ("b",), False),
        (unit("a.service"), ("x.slice", "a.service"), True),
        (unit("a.service"), ("x.slice", "a.service", "a.service"), True),
        (unit("a.service"), ("x.slice", "a.service", "init.scope"), False),
        (unit("a.service"), ("user.slice", "user@1000.service", "a.service"), False),
        (unit("user@*.service"), ("user.slice", "user@1000.service"), True),
        (user_unit("a.service"), ("user.slice", "user@1000.service", "app.slice", "a.service"), True),
        (user_unit("a.service"), ("user.slice", "user@x.service", "a.service"), False),
        (user_unit("a.service"), ("user.slice", "user@.service", "a.service"), False),
        (user_unit("a.service"), ("a.service",), False),
        (user_unit("*"), ("user@0.service",), False),
        (unit("[!a]?*"), ("bc",), True),
        (unit("[!a]?*"), ("b",), False),
        (unit("[!a]?*"), ("abc",), False),
        (unit("*a*b"), ("xaxbab",), True),
        (unit("*a*b"), ("xaxba",), False),
        (unit("dev-disk\\x2dby.mount"), ("dev-disk\\x2dby.mount",), True),
        (unit("é?"), ("éx",), True),
        (unit("?"), ("é",), False),  # a name is bytes, and this one has two
    ],
)
def test_a_pattern_accepts_what_the_language_says(pattern: Pattern, names: tuple[str, ...], matching: bool) -> None:
    assert matches(pattern, names) == matching
    accept = run(Automaton([policy(pattern)]).rows, names).accept
    assert accept == (((0,), ()) if matching else ((), ()))


GLOB = st.text("ab*?", min_size=1, max_size=7) | st.sampled_from(
    ["[ab]*", "*[!a]b", "user@*.service", "user@?.service"]
)
PATH = st.lists(st.just("**") | GLOB.filter(lambda glob: glob != "**"), max_size=4).map(lambda g: "/" + "/".join(g))
PATTERN = st.one_of(GLOB.map(unit), GLOB.map(user_unit), PATH.map(path))
NAME = st.text("abc", min_size=1, max_size=6) | st.sampled_from(["user@1.service", "user@12.service", "user@.service"])


@settings(max_examples=150, deadline=None)
@given(st.lists(PATTERN, min_size=1, max_size=6), st.lists(st.lists(NAME, max_size=4), min_size=30, max_size=30))
def test_random_patterns_accept_what_the_reference_matches(patterns: list[Pattern], trees: list[list[str]]) -> None:
    rows = Automaton([policy(pattern) for pattern in patterns]).rows
    for names in map(tuple, trees):
        expected = tuple(i for i, pattern in enumerate(patterns) if matches(pattern, names))
        assert run(rows, names).accept == (expected, ())


def test_what_is_excluded_is_told_beside_what_matches() -> None:
    both = [policy(unit("a*"), exclude=(unit("*b"),)), policy(unit("ab"))]
    rows = Automaton(both).rows
    assert run(rows, ("ab",)).accept == ((0, 1), (0,))
    assert run(rows, ("b",)).accept == ((), (0,))


def test_a_subtree_of_an_admin_policy_costs_no_copy_of_the_other_subjects() -> None:
    units = [policy(unit(f"unit-{i}.service")) for i in range(50)]
    subtree = path("/machine.slice/**")
    normal = len(Automaton([*units, policy(subtree)]).rows)
    admin = Automaton([*units, policy(subtree, tier=Tier.ADMIN)]).rows
    assert len(admin) < normal
    assert run(admin, ("machine.slice", "x")).accept == ((50,), ())


def test_state_zero_is_the_root_and_edges_are_sorted() -> None:
    rows = Automaton([policy(path("/"), unit("b.service"), unit("a.service"))]).rows
    assert rows[0].accept == ((0,), ())
    for row in rows:
        assert row.edges == sorted(row.edges)
        assert all(target != row.default for byte, target in row.edges if byte != ord("/"))


def test_equal_automata_are_built_in_every_run() -> None:
    policies = [policy(unit(f"*-{i}.service"), path(f"/a/**/{i}")) for i in range(20)]
    assert build_automaton(policies, 8) == build_automaton(policies, 8)


def test_globs_that_double_with_every_character_are_refused_by_name() -> None:
    policies = [policy(unit("web.service"), name="web"), policy(unit("*a" + "?" * 30), name="greedy")]
    with pytest.raises(PolicyError) as caught:
        Automaton(policies, limit_states=2000)
    assert '"greedy"' in str(caught.value)
    assert "the limit is 2000" in str(caught.value)
    assert caught.value.problems[0].line == WHERE.line


def test_globs_that_double_with_each_other_are_refused_after_work_that_the_limit_bounds() -> None:
    policies = [policy(unit(f"*{i}*.service"), name=f"p{i}") for i in range(20)]

    def refuse(limit_states: int) -> None:
        with pytest.raises(PolicyError, match='"p0", "p1"'):
            Automaton(policies, limit_states=limit_states)

    assert work(lambda: refuse(1 << 12)) < 2.5 * work(lambda: refuse(1 << 11))


def test_globs_in_many_places_at_once_are_refused_before_they_take_memory() -> None:
    """Few states, each with a place in most of the globs."""
    policies = [policy(unit(f"*a{i}*b*.service"), name=f"p{i}") for i in range(400)]
    tracemalloc.start()
    try:
        with pytest.raises(PolicyError, match=r'"p0", .* too many places at once .*the limit is 131072'):
            Automaton(policies, limit_states=1 << 14)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 32 << 20


def test_unit_patterns_cost_in_proportion_to_their_number() -> None:
    policies = [policy(unit(f"worker-{i}@*.service")) for i in range(1000)]
    built: list[Automaton] = []
    whole = work(lambda: built.append(Automaton(policies)))
    assert whole < 2.5 * work(lambda: Automaton(policies[::2]))
    rows = built[0].rows
    assert len(rows) < 20_000
    assert run(rows, ("system.slice", "worker-77@x.service")).accept == ((77,), ())
