# SPDX-License-Identifier: Apache-2.0
"""Sorted entries of address tables, in the two forms that lists have (cgnetd/tables.h).

Starts: an entry says where a row begins, and it holds until the next one. Spans: an entry covers an aligned block of
keys, and what none covers has the first row; prefixes that lie apart take one instead of two. Where a key and a row fit
into half a cell, spans can be dense: two entries a cell. Must not know how addresses become keys, or of indexes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_
from typing import NamedTuple

from cgnetd.datapath import abi

WORD = 64
BEYOND_KEYS = WORD - abi.TABLE_KEY_BITS  # bits of an entry behind its key
ANSWER = abi.TABLE_STEP - 1
_CELL = (1 << WORD) - 1
_HALF, _HALF_CELL = 32, (1 << 32) - 1
_PACKS = abi.BYTE_ORDER == "little"  # dense lists are packed in that order; elsewhere lists are wide
_NARROW = 15  # bits of a row in a dense list that no index is before
_NOT_NARROW = (1 << _HALF + _NARROW) - (1 << _NARROW)  # bits of an entry whose key and row would not fit there
_NARROW_NODE = abi.NODE_DENSE | _NARROW << abi.DENSE_SHIFT


def spans(starts: Sequence[int], end: int) -> list[int] | None:
    """What begins at `starts` and ends before `end`, as blocks: of each the middle instead of the start, which tells
    both. None if that takes twice as many, the most that can be worth it."""
    found: list[int] = []
    most, begin, answer = 2 * len(starts), 0, 0
    for following in (*starts, end):
        if answer:
            size = (following ^ following & ANSWER) - begin
            if size & size - 1 or begin & size - 1:
                found += [middle | answer for middle in _middles(begin, begin + size)]
            else:
                found.append(begin + (size >> 1) | answer)
            if len(found) >= most:
                return None
        answer = following & ANSWER
        begin = following ^ answer
    return found


def _middles(begin: int, end: int) -> Iterator[int]:
    """Of the largest aligned blocks that there are between."""
    while begin < end:
        size = 1 << (end - begin).bit_length() - 1
        if begin & size - 1:
            size = begin & -begin
        yield begin + (size >> 1)
        begin += size


def row_node(row: int) -> int:
    """The node of addresses that all have this row."""
    return abi.cell(row + 1, 0)


def narrow_node(entry: int) -> int | None:
    """The node of a list of one span, as `Density.narrow` would have it, of which there can be very many."""
    return None if entry & _NOT_NARROW or not _PACKS else abi.cell(entry >> _HALF | entry & ANSWER, _NARROW_NODE)


class Place(NamedTuple):
    """The entries `first` to `end` of a run: all that are about addresses that have the first `position` bits in common
    with `begin`. The first one can begin before."""

    first: int
    end: int
    begin: int
    position: int


class Density(NamedTuple):
    """Of spans in half a cell: a key of the bits behind the first `skip` ones, then a row of `row_bits`."""

    skip: int
    row_bits: int

    @classmethod
    def behind(cls, skip: int) -> Density | None:
        """For IPv4 addresses of which the first bits are known; None if nothing is left for a row."""
        return cls(skip, skip - 1) if skip > 1 and _PACKS else None

    @classmethod
    def narrow(cls, entries: Sequence[int]) -> Density | None:
        """Without an index before; None if keys and rows do not fit."""
        return None if not _PACKS or reduce(or_, entries) & _NOT_NARROW else cls(0, _NARROW)

    def node(self, at: int, entries: Sequence[int]) -> int:
        """The node of a list of these entries, which stand at half cell `at`. One alone is in the node itself."""
        size = abi.NODE_DENSE | self.skip << abi.NODE_SHIFT | self.row_bits << abi.DENSE_SHIFT
        return abi.cell(self.halves(entries)[0], size) if len(entries) == 1 else abi.cell(at, size | len(entries))

    def halves(self, entries: Sequence[int]) -> list[int]:
        shift, key = _HALF - self.skip, _HALF_CELL >> self.row_bits << self.row_bits
        return [entry >> shift & key | entry & ANSWER for entry in entries]


class Run(NamedTuple):
    """Sorted entries that stand at `at` of the blob, each below the `skip` bits before its key. `at` counts cells, or
    half cells where they are dense."""

    entries: Sequence[int]
    at: int
    skip: int
    is_spans: bool = False
    dense: Density | None = None

    def packed(self) -> bytes:
        """As whole cells. Of dense entries the low half is the first in memory (`_PACKS`)."""
        if not self.dense:
            single = 0 if self.is_spans else abi.TABLE_STEP
            return array("Q", [entry & _CELL | single for entry in self.entries]).tobytes()
        if len(self.entries) == 1:
            return b""  # it is in the node
        return array("I", self.dense.halves(self.entries)).tobytes() + bytes(4 * (len(self.entries) & 1))

    def node(self, place: Place) -> int:
        """A row, or a list."""
        alone, count = self._alone(place), place.end - place.first
        if alone is not None and not alone & abi.TABLE_MORE:
            return row_node(alone & ANSWER)
        if self.dense:
            return self.dense.node(self.at + place.first, self.entries[place.first : place.end])
        kind = abi.NODE_SPANS if self.is_spans else 0
        return abi.cell(self.at + place.first, kind | self.skip << abi.NODE_SHIFT | count)

    def is_list(self, place: Place) -> bool:
        """Whether a place has more than one row."""
        return self._alone(place) is None

    def shared_bits(self, place: Place) -> int:
        """How many bits all places have in common at which rows change, but for the first one."""
        first = place.first if self.is_spans else min(place.first + 1, place.end - 1)
        differ = self.entries[first] ^ self.entries[place.end - 1]
        return WORD + self.skip - max(differ.bit_length(), BEYOND_KEYS)

    def parts(self, place: Place, bits: int) -> Iterator[Place]:
        """The places by the next bits."""
        size = self._size(place.position + bits)
        return self._parts_of_spans(place, bits, size) if self.is_spans else self._parts_of_starts(place, bits, size)

    def _parts_of_starts(self, place: Place, bits: int, size: int) -> Iterator[Place]:
        first, end, begin, position = place
        for _ in range(1 << bits):
            beyond = bisect_left(self.entries, begin + size, first, end)
            begins = first < beyond and self.entries[first] - begin <= ANSWER
            yield Place(first if begins else first - 1, beyond, begin, position + bits)
            first, begin = beyond, begin + size

    def _parts_of_spans(self, place: Place, bits: int, size: int) -> Iterator[Place]:
        """A span is one of several places, or in one: both are aligned."""
        first, end, begin, position = place
        for _ in range(1 << bits):
            start, beyond = self._span(first) if first < end else (0, 0)
            if start <= begin < begin + size <= beyond:
                yield Place(first, first + 1, begin, position + bits)
                first += beyond == begin + size
            else:
                following = bisect_left(self.entries, begin + size, first, end)
                yield Place(first, following, begin, position + bits)
                first = following
            begin += size

    def _alone(self, place: Place) -> int | None:
        """The only entry that counts in a place, 0 for the first row; None if there are several."""
        first, end, begin, position = place
        if not self.is_spans:
            return self.entries[first] if end - first == 1 else None
        if end == first:
            return 0
        start, beyond = self._span(first)
        return self.entries[first] if start <= begin and begin + self._size(position) <= beyond else None

    def _span(self, index: int) -> tuple[int, int]:
        """Where a span begins, and what is beyond it."""
        middle = self.entries[index] & ~ANSWER
        half = middle & -middle
        return middle - half, middle + half

    def _size(self, position: int) -> int:
        """Of a place of so many bits, as entries count."""
        return 1 << WORD + self.skip - position
