# SPDX-License-Identifier: Apache-2.0
"""Address tables: the line of all addresses cut where rules begin and end, each piece with the row of the rules there.

`sweep` cuts; `table_cells` lays the pieces out as the kernel bisects them, below a root of the top bits. Must not know
of ports, protocols or what a row holds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cgnetd.datapath.budget import Budget
from cgnetd.policy.types import Range

BARE_ENTRIES = 32  # up to here bisection alone is as quick as a root
MAX_ROOT_BITS = 16


class Family(NamedTuple):
    """Width of an address in bits, and cells of a table entry."""

    bits: int
    entry_cells: int


class Pieces(NamedTuple):
    """The pieces of the line in order: first address (the first one's is 0) and row of each."""

    starts: list[int]
    rows: list[int]


V4 = Family(32, 1)
V6 = Family(128, 3)


def sweep(
    family: Family,
    groups: Sequence[Sequence[Range]],
    always: Sequence[int],
    row_of: Callable[[tuple[int, ...]], int],
    budget: Budget,
) -> Pieces:
    """Cut the family's addresses at the boundaries of the groups.

    `groups[g]` are the sorted disjoint ranges of group g, `always` the sorted groups that are everywhere. `row_of` gets
    the groups at a piece, ascending, once for each distinct combination. Neighbours with one row are one piece.
    """
    end = 1 << family.bits
    events: list[int] = []
    for group, ranges in enumerate(groups):
        opened, closed = group << 1 | 1, group << 1
        events += [first << 32 | opened for first, _ in ranges]
        events += [(last + 1) << 32 | closed for _, last in ranges if last + 1 < end]
    events.sort()
    budget.spend_steps(len(events))
    return _pieces(events, list(always), row_of, budget)


def _pieces(events: list[int], active: list[int], row_of: Callable[[tuple[int, ...]], int], budget: Budget) -> Pieces:
    """Walk `position << 32 | group << 1 | opens` events; see `sweep`."""
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


def root_bits(entries: int) -> int:
    """Bits of the root for a table of so many entries: none for a few, then about one or two entries a root cell."""
    return 0 if entries <= BARE_ENTRIES else min(MAX_ROOT_BITS, entries.bit_length() - 1)


def table_cells(family: Family, pieces: Pieces, offset: int) -> tuple[array[int], int]:
    """The cells of a table that will stand at `offset` of its blob: root, then entries. Also returns the root bits."""
    bits = root_bits(len(pieces.starts))
    cells = array("Q", _root(family, pieces, bits, offset + (1 << bits)))
    if family is V4:
        cells.extend([start << 32 | row for start, row in zip(*pieces, strict=True)])
    else:
        for start, row in zip(*pieces, strict=True):
            cells.extend((start >> 64, start & 0xFFFFFFFFFFFFFFFF, row))
    return cells, bits


def _root(family: Family, pieces: Pieces, bits: int, entries_at: int) -> list[int]:
    """One cell for each value of the top `bits` bits: `offset of the first entry | entry count`, or `row + 1 | 0`."""
    starts, rows = pieces
    cells: list[int] = []
    bounds = [*starts, 1 << family.bits]
    index, shift = 0, family.bits - bits
    for top in range(1 << bits):
        if bounds[index + 1] == top << shift:
            index += 1
        first, beyond = index, (top + 1) << shift
        while bounds[index + 1] < beyond:
            index += 1
        if first == index:
            cells.append(rows[first] + 1 << 32)
        else:
            cells.append((entries_at + first * family.entry_cells) << 32 | (index - first + 1))
    return cells
