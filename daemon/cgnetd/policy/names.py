# SPDX-License-Identifier: Apache-2.0
"""Names of UNIX sockets: globs over them, as one automaton that the reference matcher runs and the compiler takes over.

A name is bytes, as a program gave it: a path, or an abstract name, which begins with a NUL. A glob is bytes too: "/..."
over paths, NUL and the rest over abstract names. Must not know of rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from .glob import STAR, components, tokens

NAME_MAX = 108  # bytes of sun_path; of a path one is left for its NUL
ABSTRACT = b"\0"
EVERY_PATH = b"/**"
ANY = (EVERY_PATH, b"\0*")  # the word `any`: every name there is, also one that is unsure

_SLASH = 1 << ord("/")
_ANY_BYTE = (1 << 256) - 1
_NOT_SLASH = _ANY_BYTE & ~_SLASH
_RUN = -1  # token: any bytes but a slash, also none
_DEEP = -2  # token: any bytes, also none
_GAP = -3  # token: nothing, or whole components with the slash behind them
_IN_GAP = -4  # token: within the components of a gap; always right behind it


@dataclass(frozen=True, slots=True)
class NameAutomaton:
    """The glob as states and moves, without empty moves, not deterministic. It is right for names that are not unsure.

    `moves[state]` are pairs of a mask of 256 bits, bit B set for byte B, and the states that such a byte leads to.
    """

    start: frozenset[int]
    moves: tuple[tuple[tuple[int, frozenset[int]], ...], ...]
    accept: int  # a name that ends in a set of states with this one matches


def is_unsure(name: bytes) -> bool:
    """Whether the name could be any path: relative, or with an empty, `.` or `..` component. No abstract name is."""
    if name.startswith(ABSTRACT):
        return False
    first, *rest = name.split(b"/")
    return first != b"" or not rest or any(part in (b"", b".", b"..") for part in rest)


def match_name(globs: Iterable[bytes], name: bytes) -> bool:
    """Whether one of the globs matches the whole name. A name that is unsure (see `is_unsure`) matches nothing."""
    return not is_unsure(name) and any(_runs(automaton(glob), name) for glob in globs)


def _runs(made: NameAutomaton, name: bytes) -> bool:
    reached = made.start
    for byte in name:
        reached = frozenset(
            state for at in reached for mask, following in made.moves[at] if mask >> byte & 1 for state in following
        )
    return made.accept in reached


@lru_cache(maxsize=4096)
def automaton(glob: bytes) -> NameAutomaton:
    """The automaton of one glob. In a path `*`, `?` and `[...]` do not match a slash; a component `**` is any number of
    components, the last one at least one. In an abstract name they match every byte. Raises GlobError."""
    wanted = _tokens(glob)
    closed: list[frozenset[int]] = [frozenset({len(wanted)})]  # by state, from the last one: it and what it may skip to
    for state in range(len(wanted) - 1, -1, -1):
        skipped = {_RUN: 1, _DEEP: 1, _GAP: 2}.get(wanted[state])
        closed.insert(0, frozenset({state}) | (closed[skipped - 1] if skipped else frozenset()))
    return NameAutomaton(closed[0], tuple(_moves(wanted, closed, state) for state in range(len(closed))), len(wanted))


def _moves(wanted: tuple[int, ...], closed: list[frozenset[int]], state: int) -> tuple[tuple[int, frozenset[int]], ...]:
    token = wanted[state] if state < len(wanted) else 0
    if token == _RUN:
        return ((_NOT_SLASH, closed[state]),)
    if token == _DEEP:
        return ((_ANY_BYTE, closed[state]),)
    if token == _IN_GAP:
        return ((_NOT_SLASH, closed[state]), (_SLASH, closed[state] | closed[state - 1]))
    if token == _GAP:
        return ((_ANY_BYTE, closed[state + 1]),)
    return ((token, closed[state + 1]),) if token else ()


def _tokens(glob: bytes) -> tuple[int, ...]:
    text = glob.decode("utf-8", "surrogateescape")
    if glob.startswith(ABSTRACT):
        return tuple(_DEEP if token == STAR else token for token in tokens(text))
    found: list[int] = []
    parts = components(text)
    for index, part in enumerate(parts):
        if part == "**" and index < len(parts) - 1:
            found += [*([_SLASH] if index == 0 or parts[index - 1] != "**" else []), _GAP, _IN_GAP]
        else:
            behind_gap = index > 0 and parts[index - 1] == "**"
            found += [*([] if behind_gap else [_SLASH]), *_component(part)]
    return tuple(found)


def _component(part: str) -> list[int]:
    if part == "**":
        return [_ANY_BYTE, _DEEP]
    return [_RUN if token == STAR else token & _NOT_SLASH for token in tokens(part)]


def shortest(glob: bytes) -> int:
    """Bytes of the shortest name that the glob matches, to tell one that no name is long enough for."""
    return sum(token >= 0 for token in _tokens(glob))
