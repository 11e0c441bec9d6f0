# SPDX-License-Identifier: Apache-2.0
"""The automaton of names of UNIX sockets finds the rule that the reference finds; what grows without end is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.budget import Budget
from cgnetd.datapath.names import NameAutomaton, Row, name_cells, unsure_references
from cgnetd.errors import PolicyError
from cgnetd.policy.names import ANY, is_unsure, match_name
from cgnetd.policy.types import Action, Hook, Rule, Section, Where

WHERE = Where("unix.yaml", 4)
BOTH = frozenset({Hook.CONNECT, Hook.SENDMSG})
CONNECT = frozenset({Hook.CONNECT})


def rule(*globs: bytes, action: Action = Action.ALLOW, hooks: frozenset[Hook] = BOTH) -> Rule:
    return Rule("u", Section.EGRESS, action, WHERE, unix=globs, hooks=hooks)


def built(*rules: Rule, limit_states: int = 1 << 16) -> list[Row]:
    numbered = list(enumerate(rules, abi.REF_RULE))
    return NameAutomaton(numbered, Budget("web", WHERE), limit_states).rows


def run(rows: list[Row], name: bytes) -> tuple[int, int]:
    """References for connect and sendmsg, 1 where nothing is decided."""
    state = 0
    for byte in name:
        state = dict(rows[state].edges).get(byte, rows[state].default)
    return rows[state].references


COMPONENT = st.text("ab*?", min_size=1, max_size=5) | st.sampled_from(["[ab]*", "*[!a]b", "**", "a[!b]", "*b*a"])
PATH_GLOB = st.lists(COMPONENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
ABSTRACT_GLOB = st.text("ab*?/", max_size=6).map(lambda text: "\0" + text)
GLOBS = (PATH_GLOB | ABSTRACT_GLOB).map(str.encode)
NAME_PATH = st.lists(st.text("abc.", min_size=1, max_size=4), min_size=1, max_size=5).map(lambda p: "/" + "/".join(p))
SURE_NAMES = (NAME_PATH | st.text("ab/\0", max_size=7).map(lambda text: "\0" + text)).map(str.encode)


RULES = st.lists(
    st.builds(
        lambda globs, hooks: rule(*globs, hooks=hooks),
        st.lists(GLOBS, min_size=1, max_size=2),
        st.sampled_from([BOTH, CONNECT]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(RULES, st.lists(SURE_NAMES.filter(lambda name: not is_unsure(name)), min_size=30, max_size=30))
def test_the_earliest_rule_that_the_reference_matches_is_found(rules: list[Rule], names: list[bytes]) -> None:
    rows = built(*rules)
    for name in names:
        matching = [(reference, r) for reference, r in enumerate(rules, abi.REF_RULE) if match_name(r.unix or (), name)]
        wanted = (
            next((reference for reference, _ in matching), abi.REF_NONE),
            next((reference for reference, r in matching if Hook.SENDMSG in r.hooks), abi.REF_NONE),
        )
        assert run(rows, name) == wanted, name


def test_a_rule_for_one_hook_leaves_the_other_to_the_next() -> None:
    rows = built(rule(b"/run/*", hooks=CONNECT), rule(b"/run/a"))
    assert run(rows, b"/run/a") == (2, 3)
    assert run(rows, b"/run/b") == (2, abi.REF_NONE)


def test_a_star_keeps_to_its_component_and_abstract_names_have_none() -> None:
    rows = built(rule(b"/run/*.sock"), rule(b"\0*.sock"))
    assert run(rows, b"/run/a.sock") == (2, 2)
    assert run(rows, b"/run/a/b.sock") == (1, 1)
    assert run(rows, b"\0a/b.sock") == (3, 3)


def test_cells_are_laid_out_as_the_header_says() -> None:
    rows = built(rule(b"/a"), rule(b"\0*"))
    cells = name_cells(rows, 100)
    edges_at = 100 + len(rows) * abi.NAME_STATE_CELLS
    assert len(cells) == len(rows) * abi.NAME_STATE_CELLS + sum(len(row.edges) for row in rows)
    for number, row in enumerate(rows):
        default, edges, references = cells[number * 3 : number * 3 + 3]
        assert default == abi.cell(row.default, 0)
        assert references == abi.cell(*row.references)
        first = abi.hi(edges) - 100
        told = [(abi.hi(cell), abi.lo(cell)) for cell in cells[first : first + abi.lo(edges)]]
        assert told == row.edges == sorted(row.edges)
        assert abi.hi(edges) >= edges_at


@pytest.mark.parametrize(
    ("rules", "references"),
    [
        ([rule(b"/run/*"), rule(b"/**")], (3, 3)),
        ([rule(b"\0*", action=Action.DENY)], (1, 1)),
        ([rule(b"/run/*", action=Action.PASS), rule(b"/run/x", action=Action.DENY)], (3, 3)),
        ([rule(b"/run/x", action=Action.REDIRECT, hooks=CONNECT), rule(*ANY)], (2, 3)),
        ([rule(*ANY, action=Action.PASS), rule(*ANY, action=Action.DENY)], (2, 2)),
        ([], (1, 1)),
    ],
)
def test_a_name_that_could_be_any_path_meets_the_first_rule_that_holds_for_it(
    rules: list[Rule], references: tuple[int, int]
) -> None:
    assert unsure_references(list(enumerate(rules, abi.REF_RULE))) == references


@pytest.mark.parametrize("globs", [[b"/*a" + b"?" * 40], [f"\0*{i}*".encode() for i in range(18)]])
def test_globs_that_need_too_many_states_are_refused_by_name(globs: list[bytes]) -> None:
    with pytest.raises(PolicyError, match=r'^unix\.yaml:4:1: policy "web" has globs under `unix` .*limit is 65536'):
        built(*(rule(glob) for glob in globs))


def test_a_thousand_globs_are_one_automaton() -> None:
    rules = [rule(f"/run/app-{i}/sock*.d/x{i}".encode()) for i in range(1000)]
    rows = built(*rules)
    assert run(rows, b"/run/app-77/sock5.d/x77") == (79, 79)
    assert run(rows, b"/run/app-77/sock5.d/x78") == (1, 1)


def test_equal_automata_are_built_in_every_run() -> None:
    rules = [rule(f"/run/*{i}".encode(), f"\0{i}*".encode()) for i in range(20)]
    assert name_cells(built(*rules), 8) == name_cells(built(*(r._replace() for r in rules)), 8)
