# SPDX-License-Identifier: Apache-2.0
"""Subjects of all policies as one graph over the components of a cgroup's path.

A node is "the path so far has been matched up to here"; an edge consumes one component that its glob matches; a node
that loops also stays where it is, whatever the component. Equal patterns and equal beginnings of path patterns are one.
Must not know of states or cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cgnetd.datapath.globs import EVERY_BYTE, Token
from cgnetd.policy.glob import STAR, components, tokens
from cgnetd.policy.types import Pattern, PatternKind, Policy, Tier

ROOT = 0  # the root of the tree, nothing consumed
UNITS = 1  # anywhere that is not below a user manager; loops
USER_UNITS = 2  # anywhere below one; loops
MANAGER = 3  # the component just consumed was a user manager

ANY_NAME = (Token(EVERY_BYTE, repeat=True),)
_DIGITS = sum(1 << byte for byte in b"0123456789")
_USER_MANAGER = (
    *(Token(mask) for mask in tokens("user@")),
    Token(_DIGITS),
    Token(_DIGITS, repeat=True),
    *(Token(mask) for mask in tokens(".service")),
)


@dataclass(slots=True)
class Node:
    edges: list[int] = field(default_factory=list)
    loops: bool = False
    free: list[int] = field(default_factory=list)  # nodes reached by consuming nothing
    matching: set[int] = field(default_factory=set)  # ids of policies whose subject matches here
    excluding: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Edge:
    glob: tuple[Token, ...]
    target: int


class SubjectGraph:
    """`nodes` and `edges` of every pattern; policy ids are positions in the sequence given."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.nodes = [Node(), Node(loops=True), Node(loops=True), Node()]
        self.edges: list[Edge] = []
        self._children: dict[tuple[int, str], int] = {}
        self._connect(UNITS, _USER_MANAGER, MANAGER)
        for policy_id, policy in enumerate(policies):
            for pattern in policy.subject.match:
                self.nodes[self._node(pattern, once=policy.tier is Tier.ADMIN)].matching.add(policy_id)
            for pattern in policy.subject.exclude:
                self.nodes[self._node(pattern, once=True)].excluding.add(policy_id)

    def closure(self, nodes: Iterable[int]) -> frozenset[int]:
        """The nodes and all that is reached from them by consuming nothing."""
        found: set[int] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self.nodes[node].free
        return frozenset(found)

    def owners(self, node: int) -> set[int]:
        """Ids of the policies that have a pattern which leads through this node."""
        found: set[int] = set()
        seen: set[int] = set()
        waiting = [node]
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.add(here)
                found |= self.nodes[here].matching | self.nodes[here].excluding
                waiting += [*self.nodes[here].free, *(self.edges[edge].target for edge in self.nodes[here].edges)]
        return found

    def _node(self, pattern: Pattern, *, once: bool) -> int:
        """Where the pattern has matched. `once`: what it goes on to match below changes nothing and is left out.

        The children of a cgroup inherit what matched it; matching again only moves a policy that is not of the admin
        tier. A loop that is left out spares a copy of every other subject's states.
        """
        if pattern.kind is not PatternKind.PATH:
            return self._child(UNITS if pattern.kind is PatternKind.UNIT else USER_UNITS, pattern.glob)
        node, names = ROOT, components(pattern.glob)
        for depth, name in enumerate(names):
            if name != "**":
                node = self._child(node, name)
                continue
            if depth == len(names) - 1:
                node = self._child(node, "*")  # at the end it stands for one or more
                if once:
                    return node
            node = self._loop(node)
        return node

    def _child(self, node: int, glob: str) -> int:
        key = (node, glob)
        if key not in self._children:
            self._children[key] = len(self.nodes)
            self.nodes.append(Node())
            self._connect(node, _glob(glob), self._children[key])
        return self._children[key]

    def _loop(self, node: int) -> int:
        key = (node, "**")
        if key not in self._children:
            self._children[key] = len(self.nodes)
            self.nodes.append(Node(loops=True))
            self.nodes[node].free.append(self._children[key])
        return self._children[key]

    def _connect(self, node: int, glob: tuple[Token, ...], target: int) -> None:
        self.nodes[node].edges.append(len(self.edges))
        self.edges.append(Edge(glob, target))


def _glob(text: str) -> tuple[Token, ...]:
    """The glob's tokens, stars side by side being one."""
    found: list[Token] = []
    for mask in tokens(text):
        if mask != STAR:
            found.append(Token(mask))
        elif not (found and found[-1].repeat):
            found.append(ANY_NAME[0])
    return tuple(found)
