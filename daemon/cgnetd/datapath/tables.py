# SPDX-License-Identifier: Apache-2.0
"""Address tables as the kernel reads them: nodes that lead from the bits of an address to a row (cgnetd/tables.h).

Few pieces are a list, searched by bisection; more stand behind an index of as many bits as there are pieces for, and
where an index leaves too many in one place another one follows. Where a key and a row fit into half a cell, lists are
dense: two entries a cell. Must not know what a row holds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.addresses import V4, V6, Family, Pieces

BARE_ENTRIES = 16  # up to here bisection is as quick as an index
BARE_ENTRIES_V6 = 64  # of a whole table; an index of one takes 4 KiB at least
MAX_INDEX_BITS = 16
_BLIND_BITS, _BLIND_LEAST = 8, 4  # of an index that parts nothing, where all begin with the same bits
_DENSE, _SPARSE = 1, 2  # an index has between 2^-_SPARSE and 2 * 2^-_SPARSE nodes an entry
_SKIP_V6 = 9  # of a table with an index, so that the first key ends with the 48th bit, where most prefixes do
_WORD = 64
_CELL = (1 << _WORD) - 1
_ANSWER = (1 << abi.TABLE_ANSWER_BITS) - 1
_HALF, _HALF_CELL = 32, (1 << 32) - 1
_PACKS = abi.BYTE_ORDER == "little"  # dense lists are packed in that order; elsewhere lists are wide
_NARROW = 16  # bits of a row in a dense list that no index is before
_NOT_NARROW = (1 << 48) - 1 ^ (1 << _NARROW) - 1  # bits of an entry whose key and row would not fit there


def table_cells(family: Family, pieces: Pieces, offset: int) -> tuple[array[int], int]:
    """The cells of a table that will stand at `offset` of its blob, and its first node."""
    table = _Table(family, pieces, offset)
    node = table.whole()
    return table.cells, node


class _Table:
    """Entries and indexes in `cells`, which stand at `offset` of the blob, as they are laid out."""

    def __init__(self, family: Family, pieces: Pieces, offset: int) -> None:
        self.cells = array("Q")
        self._family = family
        self._starts, self._rows = pieces
        self._offset = offset

    def whole(self) -> int:
        """Lay out all; the node of all addresses."""
        last = len(self._starts) - 1
        if self._family is V4 and last:
            return self._placed([start << 32 | row for start, row in zip(self._starts, self._rows, strict=True)])
        if self._family is V6 and last >= BARE_ENTRIES_V6:
            return self._skipped()
        return self._node(0, last, 0, self._family.bits)

    def _skipped(self) -> int:
        """An IPv6 table whose keys begin behind its first bits, by which an index must part them."""
        rest = V6.bits - _SKIP_V6
        entries: list[int] = []
        for top in range(1 << _SKIP_V6):
            first = bisect_right(self._starts, top << rest) - 1
            last = bisect_left(self._starts, (top + 1) << rest) - 1
            if first < last or not entries or entries[-1] & _ANSWER != self._rows[first]:
                entries += [top << _WORD | entry for entry in self._entries(first, last, top << rest, rest)]
        return self._placed(entries, _SKIP_V6)

    def _node(self, first: int, last: int, begin: int, bits: int) -> int:
        """The node of the pieces `first` to `last`, which hold the addresses from `begin` on that differ in the last
        `bits` bits; the first piece can start before."""
        if first == last:
            return abi.cell(self._rows[first] + 1, 0)
        return self._placed(self._entries(first, last, begin, bits))

    def _entries(self, first: int, last: int, begin: int, bits: int) -> list[int]:
        """The entries about the first bits of these pieces. Lays out what follows where these do not tell."""
        starts, rows, rest = self._starts, self._rows, bits - abi.TABLE_KEY_BITS
        found: list[int] = []
        index = first
        while index <= last:
            start = max(starts[index], begin)
            key = _shifted(start - begin, rest)
            slot, beyond = begin + _shifted(key, -rest), begin + _shifted(key + 1, -rest)
            end = index
            while end < last and starts[end + 1] < beyond:
                end += 1
            if end == index and start == slot:
                found.append(_entry(key, rows[index]))
            else:
                leading = index if start == slot else index - 1
                found.append(_entry(key, abi.TABLE_MORE | self._further(leading, end, slot, rest)))
                following = starts[end + 1] if end < last else begin + (1 << bits)
                if _shifted(following - begin, rest) > key + 1:
                    found.append(_entry(key + 1, rows[end]))
            index = end + 1
        return found

    def _further(self, first: int, last: int, begin: int, bits: int) -> int:
        """The offset of a cell with the node of these pieces."""
        node = self._node(first, last, begin, bits)
        self.cells.append(node)
        return self._offset + len(self.cells) - 1

    def _placed(self, entries: Sequence[int], skip: int = 0) -> int:
        """The node of entries, laid out here; above each stand the `skip` bits before its key."""
        if len(entries) <= BARE_ENTRIES and not skip:
            return self._listed(entries)
        at = self._offset + len(self.cells)
        run = _Run(entries, at, skip, skip << abi.NODE_SHIFT)
        dense = self._density(run)
        if dense:
            run = _Run(entries, 2 * at, skip, dense.size)
            self.cells.frombytes(dense.packed(entries))
        else:
            self.cells.extend([entry & _CELL for entry in entries] if skip else entries)
        return self._found(run, _Place(0, len(entries), 0, 0))

    def _listed(self, entries: Sequence[int]) -> int:
        """`_placed` of few entries, of which there can be very many."""
        at, count, joined = self._offset + len(self.cells), len(entries), 0
        for entry in entries:
            joined |= entry
        if joined & _NOT_NARROW or not _PACKS:
            self.cells.extend(entries)
            return abi.cell(at, count)
        halves = [entry >> _HALF | entry & _ANSWER for entry in entries]
        self.cells.extend([one | other << _HALF for one, other in zip_longest(halves[::2], halves[1::2], fillvalue=0)])
        return abi.cell(2 * at, abi.NODE_DENSE | _NARROW << abi.DENSE_SHIFT | count)

    def _density(self, run: _Run) -> _Density | None:
        """How a run can be dense; None if it cannot."""
        if run.skip or not _PACKS:
            return None
        if self._family is V4:
            told, most = min(_told_bits(run), abi.TABLE_SKIP), max(self._rows).bit_length()
            if max(most, 1) <= told:
                told = _NARROW if most <= _NARROW <= told else told
                return _Density(told, told)
        return None if any(entry & _NOT_NARROW for entry in run.entries) else _Density(0, _NARROW)

    def _found(self, run: _Run, place: _Place, level: int = 0) -> int:
        """The node of a place in a run: a row, a list, or an index that is laid out here."""
        bits = _index_bits(run, place) if level < abi.TABLE_INDEXES else 0
        if not bits:
            return run.node(place)
        at = len(self.cells)
        self.cells.extend([0] * (1 << bits))
        for slot, part in enumerate(run.parts(place, bits)):
            self.cells[at + slot] = self._found(run, part, level + 1)
        return abi.cell(self._offset + at, abi.NODE_INDEX | place.position << abi.NODE_SHIFT | bits)


class _Place(NamedTuple):
    """The entries `first` to `end` of a run: all at addresses that have the first `position` bits in common with
    `begin`. The first entry can begin before."""

    first: int
    end: int
    begin: int
    position: int


class _Density(NamedTuple):
    """Of entries in half a cell: a key of the bits behind the first `skip` ones, then a row of `row_bits`."""

    skip: int
    row_bits: int

    @property
    def size(self) -> int:
        """The low half of a list's node, without the count."""
        return abi.NODE_DENSE | self.skip << abi.NODE_SHIFT | self.row_bits << abi.DENSE_SHIFT

    def packed(self, entries: Sequence[int]) -> bytes:
        """Entries as whole cells; their low half is the first in memory (`_PACKS`)."""
        padding = bytes(4 * (len(entries) & 1))
        if self.row_bits != _NARROW:
            skip = self.skip
            halves = [entry >> _HALF << skip & _HALF_CELL | entry & _ANSWER for entry in entries]
            return array("I", halves).tobytes() + padding
        quarters = array("H", array("Q", entries).tobytes())  # the same, six times as fast
        packed = array("H", bytes(4 * len(entries)))
        packed[0::2], packed[1::2] = quarters[0::4], quarters[3 - self.skip // _NARROW :: 4]
        return packed.tobytes() + padding


class _Run(NamedTuple):
    """Sorted entries that stand at `at` of the blob, each below the `skip` bits before its key. `at` counts cells, or
    half cells if they are dense, as `size`, the low half of a list's node without the count, says."""

    entries: Sequence[int]
    at: int
    skip: int
    size: int

    def node(self, place: _Place) -> int:
        """A row, or a list."""
        entry, count = self.entries[place.first], place.end - place.first
        if count == 1 and not entry & abi.TABLE_MORE:
            return abi.cell((entry & _ANSWER) + 1, 0)
        return abi.cell(self.at + place.first, self.size | count)

    def shared_bits(self, place: _Place) -> int:
        """How many bits all places have in common at which entries begin, but for the first entry."""
        differ = self.entries[min(place.first + 1, place.end - 1)] ^ self.entries[place.end - 1]
        return _WORD + self.skip - max(differ.bit_length(), abi.TABLE_ANSWER_BITS)

    def parts(self, place: _Place, bits: int) -> Iterator[_Place]:
        """The places by the next bits."""
        first, end, begin, position = place
        size = 1 << (_WORD + self.skip - position - bits)
        entries = self.entries
        for _ in range(1 << bits):
            beyond = bisect_left(entries, begin + size, first, end)
            begins = first < beyond and entries[first] - begin <= _ANSWER
            yield _Place(first if begins else first - 1, beyond, begin, position + bits)
            first, begin = beyond, begin + size


def _told_bits(run: _Run) -> int:
    """How many bits of an address indexes have told before any list of this run is asked."""
    place = _Place(0, len(run.entries), 0, 0)
    for _ in range(abi.TABLE_INDEXES):
        bits = _index_bits(run, place)
        if not bits:
            break
        if run.shared_bits(place) - place.position < _BLIND_LEAST:
            return place.position + bits
        several = [part for part in run.parts(place, bits) if part.end - part.first > 1]
        if len(several) != 1:
            return place.position + bits
        place = several[0]
    return place.position


def _index_bits(run: _Run, place: _Place) -> int:
    """Of the index of a place; 0 where a list is as quick."""
    count = place.end - place.first
    if not place.position and run.skip:
        return run.skip
    if count <= BARE_ENTRIES:
        return 0
    shared = run.shared_bits(place) - place.position
    bits = count.bit_length() - (_SPARSE if place.position else _DENSE)
    if shared >= _BLIND_LEAST:
        bits = min(bits, shared, _BLIND_BITS)
    return min(MAX_INDEX_BITS, run.skip + abi.TABLE_KEY_BITS - place.position, max(1, bits))


def _entry(key: int, answer: int) -> int:
    return key << abi.TABLE_ANSWER_BITS | answer


def _shifted(value: int, bits: int) -> int:
    """Shifted to the right, or to the left if `bits` is negative."""
    return value >> bits if bits >= 0 else value << -bits
