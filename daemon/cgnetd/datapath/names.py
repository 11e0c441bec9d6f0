# SPDX-License-Identifier: Apache-2.0
"""Rules on names of UNIX sockets: one deterministic automaton a policy, over the bytes of a name.

Subset construction over the automata of all globs. A state is a set of positions, and tells the earliest rule whose
glob ends there, for each hook. Where a glob has come to a run of any bytes, what lies before the run is dropped: the
rest of the name can only match what it matches from there. Must not know of images.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.budget import Budget
from cgnetd.datapath.rows import EGRESS_HOOKS
from cgnetd.policy.names import EVERY_PATH, automaton
from cgnetd.policy.types import Action, Hook, Rule

LIMIT_STATES = 1 << 16
STEPS_A_STATE = 64  # on average, at the limit: bounds the time that it takes to refuse

NumberedRule = tuple[int, Rule]  # with its reference
Pair = tuple[int, int]  # references for connect and sendmsg


class Row(NamedTuple):
    """A finished state."""

    default: int
    edges: list[tuple[int, int]]
    references: Pair


class Position(NamedTuple):
    """A state of one glob's automaton: where bytes lead, and what it dominates: earlier positions that are dropped."""

    some: dict[int, tuple[int, ...]]  # by byte, of masks with few bytes
    others: tuple[int, ...]  # positions after a byte that is in no key of `some`
    dominated: range
    reference: Pair  # of the rule whose glob ends here, else nothing decided


class NameAutomaton:
    """The states of one policy's rules; `rows[0]` is the start. PolicyError beyond `limit_states`, or the budget."""

    def __init__(self, rules: Sequence[NumberedRule], budget: Budget, limit_states: int = LIMIT_STATES) -> None:
        self.rows: list[Row] = []
        self._budget = budget
        self._limit = limit_states
        self._steps = 0
        self._positions: list[Position] = []
        self._states: dict[frozenset[int], int] = {}
        start = [position for reference, rule in rules for position in self._add_rule(reference, rule)]
        waiting = [self._kept(start)]
        self._states[waiting[0]] = 0
        for state in waiting:  # grows while it is walked
            self.rows.append(self._finish(state, waiting))

    def _add_rule(self, reference: int, rule: Rule) -> list[int]:
        """Add the positions of a rule's globs; those that they start in."""
        pair = tuple(reference if hook in rule.hooks else abi.REF_NONE for hook in EGRESS_HOOKS)
        starts = []
        for glob in rule.unix or ():
            first = len(self._positions)
            made = automaton(glob)
            starts += [first + state for state in made.start]
            for state, moves in enumerate(made.moves):
                ends = (pair[0], pair[1]) if state == made.accept else (abi.REF_NONE, abi.REF_NONE)
                shifted = [(mask, tuple(first + following for following in states)) for mask, states in moves]
                dominated = range(first + _dominated_from(made.moves, state), first + state)
                self._positions.append(Position(*_by_byte(shifted), dominated, ends))
        return starts

    def _finish(self, state: frozenset[int], waiting: list[frozenset[int]]) -> Row:
        """Work out where every byte leads from a state; new ones go behind those that wait."""
        positions = [self._positions[number] for number in state]
        telling = {byte for position in positions for byte in position.some}
        default = self._number([p for position in positions for p in position.others], waiting)
        edges = []
        for byte in sorted(telling):
            reached = [p for position in positions for p in position.some.get(byte, position.others)]
            target = self._number(reached, waiting)
            if target != default:
                edges.append((byte, target))
        self._steps += len(positions) * (len(telling) + 1)
        if self._steps > self._limit * STEPS_A_STATE:
            self._refuse()
        self._budget.spend_cells(abi.NAME_STATE_CELLS + len(edges))
        return Row(default, edges, self._references(positions))

    def _number(self, reached: Iterable[int], waiting: list[frozenset[int]]) -> int:
        state = self._kept(reached)
        known = self._states.get(state)
        if known is None:
            known = self._states[state] = len(self._states)
            waiting.append(state)
            if known >= self._limit:
                self._refuse()
        return known

    def _refuse(self) -> None:
        reason = f"has globs under `unix` that together need too many states (the limit is {self._limit})"
        self._budget.refuse(f"{reason}; use fewer * and ? in one name")

    def _kept(self, reached: Iterable[int]) -> frozenset[int]:
        found = set(reached)
        for number in sorted(found):
            dominated = self._positions[number].dominated
            if dominated:
                found.difference_update(dominated)
        return frozenset(found)

    def _references(self, positions: Sequence[Position]) -> Pair:
        return (_earliest(p.reference[0] for p in positions), _earliest(p.reference[1] for p in positions))


def name_cells(rows: Sequence[Row], base: int) -> array[int]:
    """States and edges as cells to stand at `base` of a blob."""
    states, edges = array("Q"), array("Q")
    edges_at = base + len(rows) * abi.NAME_STATE_CELLS
    for row in rows:
        states.append(abi.cell(row.default, 0))
        states.append(abi.cell(edges_at + len(edges), len(row.edges)))
        states.append(abi.cell(*row.references))
        edges.extend([abi.cell(byte, target) for byte, target in row.edges])
    return states + edges


def unsure_references(rules: Sequence[NumberedRule]) -> Pair:
    """References for a name that could be any path: the first rule that denies or redirects some path, or allows or
    passes every one."""
    deciding = [(reference, rule) for reference, rule in rules if _decides_unsure(rule)]

    def first(hook: Hook) -> int:
        return next((reference for reference, rule in deciding if hook in rule.hooks), abi.REF_NONE)

    return first(Hook.CONNECT), first(Hook.SENDMSG)


def _decides_unsure(rule: Rule) -> bool:
    globs = rule.unix or ()
    if rule.action in (Action.DENY, Action.REDIRECT):
        return any(glob.startswith(b"/") for glob in globs)
    return EVERY_PATH in globs


def _earliest(references: Iterable[int]) -> int:
    return min((reference for reference in references if reference != abi.REF_NONE), default=abi.REF_NONE)


Moves = Sequence[tuple[int, Iterable[int]]]


def _dominated_from(moves: Sequence[Moves], state: int) -> int:
    """The first of the states before `state` from which every way on takes only bytes at which `state` stays."""
    stays = 0
    for mask, following in moves[state]:
        stays |= mask if state in following else 0
    first = state
    while first and stays and not any(mask & ~stays for mask, _ in moves[first - 1]):
        first -= 1
    return first


def _by_byte(moves: Sequence[tuple[int, tuple[int, ...]]]) -> tuple[dict[int, tuple[int, ...]], tuple[int, ...]]:
    """Moves by byte where it matters which, and those of all other bytes."""
    wide = [(mask, states) for mask, states in moves if mask.bit_count() > 128]
    everywhere = tuple(position for _, states in wide for position in states)
    telling = {byte for mask, _ in moves for byte in range(256) if (mask >> byte & 1) == (mask.bit_count() <= 128)}
    some = {byte: tuple(p for mask, states in moves if mask >> byte & 1 for p in states) for byte in telling}
    return some, everywhere
