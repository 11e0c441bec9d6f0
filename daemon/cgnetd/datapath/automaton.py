# SPDX-License-Identifier: Apache-2.0
"""The subject automaton: deterministic, over the bytes of a cgroup's path, built from the graph of all subjects.

Subset construction, state by state as they are reached. A state is a set of positions in the globs of the component
being read. A `*` stays once it is reached, so positions behind it come back with every byte: they are kept once, in the
state's frame, and what lies before it in the same glob is dropped. Must not know of images, only of cells.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.budget import too_large
from cgnetd.datapath.globs import SLASH, Moves, Positions
from cgnetd.datapath.subjects import MANAGER, ROOT, UNITS, USER_UNITS, SubjectGraph
from cgnetd.policy.types import Policy

DEFAULT_LIMIT_STATES = 1 << 18  # 1,000 unit names make 16,000; globs such as *x* can double them with each one more
EDGES_A_STATE = 4  # on average, at the limit: bounds the time that it takes to refuse
POSITIONS_A_STATE = 8  # likewise: bounds the memory, for a state can hold a position in every glob of every policy
NAMED = 5  # policies that an error names


class Before(NamedTuple):
    """What is known when a component begins: nodes of the graph, and whether a user manager is above."""

    nodes: frozenset[int]
    below_manager: bool


@dataclass(slots=True, eq=False)
class Frame:
    """What stays the same within a component: the nodes that loop, and the stars reached."""

    carried: frozenset[int]
    below_manager: bool
    stars: frozenset[int]
    behind: frozenset[int]  # positions right behind the stars: in every state of this frame
    moves: Moves
    ended: frozenset[int]  # edges whose globs end with a star that was reached
    states: dict[frozenset[int], int] = field(default_factory=dict)  # by positions that are not in `behind`
    steps: dict[int, int] = field(default_factory=dict)  # states by a byte that only `moves` knows


class State(NamedTuple):
    frame: Frame
    positions: frozenset[int]


@dataclass(slots=True)
class Row:
    """A finished state: next states, and the policies that match and exclude where a path ends here."""

    default: int
    edges: list[tuple[int, int]]
    accept: tuple[tuple[int, ...], tuple[int, ...]]


class Automaton:
    """Builds the states; `rows[0]` is the root of the tree. PolicyError beyond `limit_states`, naming policies."""

    def __init__(self, policies: Sequence[Policy], limit_states: int = DEFAULT_LIMIT_STATES) -> None:
        self.rows: list[Row] = []
        self._policies = policies
        self._limit = limit_states
        self._edges = 0
        self._held = 0  # positions that states and frames were made of
        self._graph = SubjectGraph(policies)
        self._positions = Positions([edge.glob for edge in self._graph.edges], outside=SLASH)
        self._states: list[State | None] = [None]
        self._frames: dict[tuple[frozenset[int], bool, frozenset[int]], Frame] = {}
        self._beginnings: dict[Before, int] = {}
        self._accepts: dict[frozenset[int], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        root = Before(self._graph.closure((ROOT, UNITS)), below_manager=False)
        self.rows.append(Row(0, [(SLASH, self._beginning(self._live(root)))], self._accept(root.nodes)))
        while len(self.rows) < len(self._states):
            self.rows.append(self._finish(len(self.rows)))

    def _finish(self, number: int) -> Row:
        """Work out where every byte leads from a state."""
        state = self._states[number]
        assert state is not None
        frame, (by_byte, others) = state.frame, self._positions.moves(state.positions)
        always = frame.moves
        default = self._state(frame, [*others, *always.others])
        after = self._after(state)
        edges = [(SLASH, self._beginning(self._live(after)))]
        telling = by_byte.keys() | always.by_byte.keys()
        self._edges += len(telling)
        if self._edges > self._limit * EDGES_A_STATE:
            self._refuse_states(state)
        for byte in telling:
            target = self._step(frame, byte, by_byte.get(byte, others))
            if target != default:
                edges.append((byte, target))
        return Row(default, sorted(edges), self._accept(after.nodes))

    def _step(self, frame: Frame, byte: int, reached: Sequence[int]) -> int:
        """The state after a byte that leads to `reached`, and to what it always leads to in this frame."""
        if reached:
            return self._state(frame, [*reached, *frame.moves.by_byte.get(byte, frame.moves.others)])
        if byte not in frame.steps:
            frame.steps[byte] = self._state(frame, frame.moves.by_byte.get(byte, frame.moves.others))
        return frame.steps[byte]

    def _after(self, state: State) -> Before:
        """What is known if the component ends in this state."""
        masks, edges = self._positions.masks, self._positions.globs
        ended = state.frame.ended.union(edges[p] for p in state.positions if not masks[p])
        if not ended:
            return Before(state.frame.carried, state.frame.below_manager)
        reached = {self._graph.edges[edge].target for edge in ended}
        below = state.frame.below_manager or MANAGER in reached
        nodes = self._graph.closure(state.frame.carried | reached) - {MANAGER}
        return Before(nodes - {UNITS} | {USER_UNITS} if below else nodes, below)

    def _live(self, before: Before) -> Before:
        """Without the nodes that lead nowhere: they tell the same component from no other."""
        nodes = self._graph.nodes
        return Before(frozenset(n for n in before.nodes if nodes[n].edges or nodes[n].loops), before.below_manager)

    def _beginning(self, before: Before) -> int:
        """The state at the beginning of a component; `before` holds live nodes only."""
        known = self._beginnings.get(before)
        if known is None:
            nodes = self._graph.nodes
            carried = frozenset(node for node in before.nodes if nodes[node].loops)
            frame = self._frame(carried, before.below_manager, frozenset())
            starts = [self._positions.starts[edge] for node in sorted(before.nodes) for edge in nodes[node].edges]
            known = self._beginnings[before] = self._state(frame, starts)
        return known

    def _state(self, frame: Frame, reached: Sequence[int]) -> int:
        """The number of the state with these positions, in this frame or in the one that stars among them lead to."""
        positions = self._positions.enter(reached)
        is_star = self._positions.stars
        stars = [position for position in positions if is_star[position]]
        if stars:
            frame, positions = self._add_stars(frame, positions, stars)
        key = frozenset(positions - frame.behind)
        known = frame.states.get(key)
        if known is None:
            known = frame.states[key] = len(self._states)
            state = State(frame, key)
            self._states.append(state)
            self._hold(len(key), state)
            if known >= self._limit:
                self._refuse_states(state)
        return known

    def _add_stars(self, frame: Frame, positions: set[int], stars: Sequence[int]) -> tuple[Frame, set[int]]:
        """The last star of a glob is the only one that counts, and nothing before it does."""
        edges = self._positions.globs
        last: dict[int, int] = {}
        for star in (*frame.stars, *stars):
            last[edges[star]] = max(star, last.get(edges[star], star))
        kept = {position for position in positions if position > last.get(edges[position], -1)}
        return self._frame(frame.carried, frame.below_manager, frozenset(last.values())), kept

    def _frame(self, carried: frozenset[int], below_manager: bool, stars: frozenset[int]) -> Frame:
        key = (carried, below_manager, stars)
        frame = self._frames.get(key)
        if frame is None:
            masks, edges = self._positions.masks, self._positions.globs
            behind = frozenset(star + 1 for star in stars)
            ended = frozenset(edges[position] for position in behind if not masks[position])
            frame = Frame(carried, below_manager, stars, behind, self._positions.moves(behind), ended)
            self._frames[key] = frame
            by_byte, others = frame.moves
            self._hold(len(stars) + len(others) + sum(map(len, by_byte.values())), State(frame, frozenset()))
        return frame

    def _accept(self, nodes: frozenset[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the policies that match and of those that exclude at these nodes, ascending."""
        known = self._accepts.get(nodes)
        if known is None:
            matching = {policy for node in nodes for policy in self._graph.nodes[node].matching}
            excluding = {policy for node in nodes for policy in self._graph.nodes[node].excluding}
            known = self._accepts[nodes] = (tuple(sorted(matching)), tuple(sorted(excluding)))
        return known

    def _hold(self, count: int, state: State) -> None:
        """Count positions that are kept for this state."""
        self._held += count
        limit = self._limit * POSITIONS_A_STATE
        if self._held > limit:
            self._refuse(state, f"can be in too many places at once (the limit is {limit} in all states)")

    def _refuse_states(self, state: State) -> None:
        self._refuse(state, f"need too many states (the limit is {self._limit})")

    def _refuse(self, state: State, what: str) -> None:
        """Raise PolicyError naming the policies whose globs are being read in this state."""
        targets = {self._graph.edges[self._positions.globs[p]].target for p in (*state.positions, *state.frame.behind)}
        ids = sorted({policy for node in targets for policy in self._graph.owners(node)})
        names = ", ".join(f'"{self._policies[i].name}"' for i in ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")
        where = self._policies[ids[0] if ids else 0].where
        raise too_large(
            where, f"compile subjects: the globs of policies {names} together {what}; use fewer * and ? in one name"
        )


def build_automaton(
    policies: Sequence[Policy], base: int, limit_states: int = DEFAULT_LIMIT_STATES
) -> tuple[array[int], int]:
    """The automaton of these policies (ids are positions) as cells to stand at `base` of an image, and the state count.

    Order: states, edges, accept lists. PolicyError beyond `limit_states`.
    """
    rows = Automaton(policies, limit_states).rows
    edges_at = base + len(rows) * abi.STATE_CELLS
    accepts_at = edges_at + sum(len(row.edges) for row in rows)
    states, edges, accepts = array("Q"), array("Q"), array("Q")
    offsets: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {((), ()): 0}
    for row in rows:
        if row.accept not in offsets:
            offsets[row.accept] = accepts_at + len(accepts)
            matching, excluding = row.accept
            accepts.extend([abi.cell(len(matching), len(excluding)), *matching, *excluding])
        states.append(abi.cell(row.default, offsets[row.accept]))
        states.append(abi.cell(edges_at + len(edges), len(row.edges)))
        edges.extend([abi.cell(byte, target) for byte, target in row.edges])
    return states + edges + accepts, len(rows)
