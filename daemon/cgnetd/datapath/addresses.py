# SPDX-License-Identifier: Apache-2.0
"""The line of all addresses cut where rules begin and end, each piece with the row of the rules there.

Must not know of ports, protocols, what a row holds, or how pieces are laid out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cgnetd.datapath.budget import Budget
from cgnetd.policy.types import Range


class Family(NamedTuple):
    """Width of an address in bits."""

    bits: int


class Pieces(NamedTuple):
    """The pieces of the line in order: first address (the first one's is 0) and row of each."""

    starts: list[int]
    rows: list[int]


V4 = Family(32)
V6 = Family(128)


def sweep(
    family: Family,
    groups: Sequence[Sequence[Range]],
    row_of: Callable[[tuple[int, ...]], int],
    budget: Budget,
) -> Pieces:
    """Cut the family's addresses at the boundaries of the groups.

    `groups[g]` are the sorted disjoint ranges of group g, none for one that is everywhere. `row_of` gets the groups at
    a piece, ascending, once for each distinct combination. Neighbours with one row are one piece.
    """
    end = 1 << family.bits
    events: list[int] = []
    for group, ranges in enumerate(groups):
        opened, closed = group << 1 | 1, group << 1
        events += [first << 32 | opened for first, _ in ranges]
        events += [(last + 1) << 32 | closed for _, last in ranges if last + 1 < end]
    events.sort()
    budget.spend_steps(len(events))
    return _pieces(events, row_of, budget)


def _pieces(events: list[int], row_of: Callable[[tuple[int, ...]], int], budget: Budget) -> Pieces:
    """Walk `position << 32 | group << 1 | opens` events; see `sweep`."""
    active: list[int] = []
    starts: list[int] = []
    piece_rows: list[int] = []
    rows: dict[tuple[int, ...], int] = {}
    position, last_row, steps = 0, -1, 0
    events.append(-1)  # behind the last position
    for event in events:
        if event >> 32 != position:
            key = tuple(active)
            row = rows.get(key)
            if row is None:
                row = rows[key] = row_of(key)
            if row != last_row:
                starts.append(position)
                piece_rows.append(row)
                last_row = row
            steps += len(key)
            if event < 0 or steps > budget.limit:
                break
            position = event >> 32
        group = (event & 0xFFFFFFFF) >> 1
        if event & 1:
            insort(active, group)
        else:
            del active[bisect_left(active, group)]
    budget.spend_steps(steps)
    return Pieces(starts, piece_rows)
