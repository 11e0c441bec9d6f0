# SPDX-License-Identifier: Apache-2.0
"""Address tables: the line of all addresses cut where rules begin and end, each piece with the row of the rules there.

`sweep` cuts; `table_cells` lays the pieces out as the kernel bisects them, below a root of the top bits. Must not know
of ports, protocols or what a row holds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.budget import Budget
from cgnetd.policy.types import Range

BARE_ENTRIES = 32  # up to here bisection alone is as quick as a root
MAX_ROOT_BITS = 16


class Family(NamedTuple):
    """Width of an address in bits."""

    bits: int


class Pieces(NamedTuple):
    """The pieces of the line in order: first address (the first one's is 0) and row of each."""

    starts: list[int]
    rows: list[int]


V4 = Family(32)
V6 = Family(128)
_FIRST_STRIDE, _STRIDE = 16, 32  # bits that the first list of an IPv6 table is about, and each that follows


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


def root_bits(family: Family, entries: int) -> int:
    """Bits of the root for a table of so many entries: none for a few, then about one or two entries a root cell. None
    for IPv6, whose lists are about a few bits each."""
    few = family is V6 or entries <= BARE_ENTRIES
    return 0 if few else min(MAX_ROOT_BITS, entries.bit_length() - 1)


def table_cells(family: Family, pieces: Pieces, offset: int) -> tuple[array[int], int]:
    """The cells of a table that will stand at `offset` of its blob: root, then entries. Also returns the root bits."""
    bits = root_bits(family, len(pieces.starts))
    lists = _Entries(pieces, offset + (1 << bits)) if family is V4 else _Strides(pieces, offset + (1 << bits))
    root = array("Q", _root(family, pieces, bits, lists))
    return root + lists.cells, bits


def _root(family: Family, pieces: Pieces, bits: int, lists: _Entries | _Strides) -> Iterator[int]:
    """One cell for each value of the top `bits` bits: a list, or `row + 1 | 0`."""
    bounds = [*pieces.starts, 1 << family.bits]
    index, rest = 0, family.bits - bits
    for top in range(1 << bits):
        if bounds[index + 1] == top << rest:
            index += 1
        first, beyond = index, (top + 1) << rest
        while bounds[index + 1] < beyond:
            index += 1
        yield pieces.rows[first] + 1 << 32 if first == index else lists.place(first, index, top << rest, rest)


class _Entries:
    """IPv4: `start | row`, once for each piece. `cells` stand at `offset` of the blob."""

    def __init__(self, pieces: Pieces, offset: int) -> None:
        self.cells = array("Q", [start << 32 | row for start, row in zip(*pieces, strict=True)])
        self._offset = offset

    def place(self, first: int, last: int, _begin: int, _bits: int) -> int:
        """The list of some pieces."""
        return (self._offset + first) << 32 | (last - first + 1)


class _Strides:
    """IPv6: lists of what the next bits can be, and of what follows where these do not tell."""

    def __init__(self, pieces: Pieces, offset: int) -> None:
        self.cells = array("Q")
        self._starts, self._rows = pieces
        self._offset = offset

    def place(self, first: int, last: int, begin: int, bits: int) -> int:
        """The list of the pieces `first` to `last`, which hold the addresses from `begin` on that differ in the last
        `bits` bits; the first piece can start before."""
        starts, rows, rest = self._starts, self._rows, bits - (_FIRST_STRIDE if bits == V6.bits else _STRIDE)
        entries: list[int] = []
        index = first
        while index <= last:
            start = max(starts[index], begin)
            key = _shifted(start - begin, rest)
            slot, beyond = begin + _shifted(key, -rest), begin + _shifted(key + 1, -rest)
            end = index
            while end < last and starts[end + 1] < beyond:
                end += 1
            if end == index and start == slot:
                entries.append(key << 32 | rows[index])
            else:
                leading = index if start == slot else index - 1
                entries.append(key << 32 | abi.STRIDE_MORE | self._further(leading, end, slot, rest))
                following = starts[end + 1] if end < last else begin + (1 << bits)
                if _shifted(following - begin, rest) > key + 1:
                    entries.append((key + 1) << 32 | rows[end])
            index = end + 1
        at = self._offset + len(self.cells)
        self.cells.extend(entries)
        return at << 32 | len(entries)

    def _further(self, first: int, last: int, begin: int, bits: int) -> int:
        """The offset of a cell with the list of these pieces."""
        found = self.place(first, last, begin, bits)
        self.cells.append(found)
        return self._offset + len(self.cells) - 1


def _shifted(value: int, bits: int) -> int:
    """Shifted to the right, or to the left if `bits` is negative."""
    return value >> bits if bits >= 0 else value << -bits
