# SPDX-License-Identifier: Apache-2.0
"""Address tables as the kernel reads them: nodes that lead from the bits of an address to a row (cgnetd/tables.h).

Few entries are a list, searched by bisection; more stand behind an index of as many bits as there are entries for, and
where an index leaves too many in one place another one follows. Must not know what a row holds, or how entries are
found in a list.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from cgnetd.datapath import abi
from cgnetd.datapath.addresses import V4, V6, Family, Pieces
from cgnetd.datapath.runs import ANSWER, BEYOND_KEYS, WORD, Density, Place, Run, narrow_node, row_node, spans

BARE_ENTRIES, BARE_SPANS = 16, 8  # up to here bisection is as quick as an index
BARE_ENTRIES_V6 = 64  # of a whole table; an index of one takes 4 KiB at least
SPANS_FROM = 1024  # pieces of a table; what a span covers is a look at it more, and few starts take little room
MAX_INDEX_BITS = 16
_BLIND_BITS, _BLIND_LEAST = 8, 4  # of an index that parts nothing, where all begin with the same bits
_UNICAST_V6, _FEW_V6 = 3, 2048  # with fewer spans, an index of so many bits first saves most of 4 KiB
_DENSE, _SPARSE = 1, 2  # an index has between 2^-_SPARSE and 2 * 2^-_SPARSE nodes an entry
_SKIP_V6 = 9  # of a table with an index, so that the first key ends with the 48th bit, where most prefixes do


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
            if first < last or not entries or entries[-1] & ANSWER != self._rows[first]:
                entries += [top << WORD | entry for entry in self._entries(first, last, top << rest, rest)]
        return self._placed(entries, _SKIP_V6)

    def _node(self, first: int, last: int, begin: int, bits: int) -> int:
        """The node of the pieces `first` to `last`, which hold the addresses from `begin` on that differ in the last
        `bits` bits; the first piece can start before."""
        if first == last:
            return row_node(self._rows[first])
        return self._placed(self._entries(first, last, begin, bits))

    def _entries(self, first: int, last: int, begin: int, bits: int) -> list[int]:
        """Where the first bits of these pieces begin, and with what. Lays out what follows where these do not tell."""
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
                found.append(key << BEYOND_KEYS | rows[index])
            else:
                leading = index if start == slot else index - 1
                found.append(key << BEYOND_KEYS | abi.TABLE_MORE | self._further(leading, end, slot, rest))
                following = starts[end + 1] if end < last else begin + (1 << bits)
                if _shifted(following - begin, rest) > key + 1:
                    found.append((key + 1) << BEYOND_KEYS | rows[end])
            index = end + 1
        return found

    def _further(self, first: int, last: int, begin: int, bits: int) -> int:
        """The offset of a cell with the node of these pieces."""
        block = self._block(first, last, begin, bits)
        self.cells.append(self._single(*block, bits) if block else self._node(first, last, begin, bits))
        return self._offset + len(self.cells) - 1

    def _block(self, first: int, last: int, begin: int, bits: int) -> tuple[int, int, int] | None:
        """Where the only piece with another than the first row is, how large, and its row; None unless it is a block
        for a span. Long prefixes are that mostly."""
        if last - first > 2 or len(self._starts) < SPANS_FROM:
            return None
        index = next((index for index in range(first, last + 1) if self._rows[index]), last)
        if any(self._rows[index + 1 : last + 1]):
            return None
        start = max(self._starts[index] - begin, 0)
        size = (self._starts[index + 1] - begin if index < last else 1 << bits) - start
        return None if size & size - 1 or start & size - 1 else (start, size, self._rows[index])

    def _single(self, start: int, size: int, row: int, bits: int) -> int:
        """The node of addresses that differ in the last `bits` bits, of which one block has another than the first
        row: as `_node` has it, in fewer steps."""
        rest = bits - abi.TABLE_KEY_BITS
        entry = _shifted(2 * start + size, bits - WORD + 1) | row
        if rest > 0 and size < 1 << rest:
            slot = start >> rest << rest
            self.cells.append(self._single(start - slot, size, row, rest))
            middle = _shifted(slot + (1 << rest - 1), bits - WORD)
            entry = middle | abi.TABLE_MORE | self._offset + len(self.cells) - 1
        node = narrow_node(entry)
        if node is not None:
            return node
        self.cells.append(entry)
        return abi.cell(self._offset + len(self.cells) - 1, abi.NODE_SPANS | 1)

    def _placed(self, starts: Sequence[int], skip: int = 0) -> int:
        """The node of what begins at `starts`, laid out here; above each stand the `skip` bits before its key."""
        at = self._offset + len(self.cells)
        run = self._spans(starts, at, skip) or Run(starts, at, skip)
        self.cells.frombytes(run.packed())
        whole = Place(0, len(run.entries), 0, 0)
        return self._found(run, whole) if skip or whole.end > _bare(run) else run.node(whole)

    def _spans(self, starts: Sequence[int], at: int, skip: int) -> Run | None:
        """A run of spans to stand at cell `at`; None where starts are smaller, or quicker."""
        covering = spans(starts, 1 << WORD + skip) if len(self._starts) >= SPANS_FROM else None
        if covering is None:
            return None
        run = Run(covering, at, skip, is_spans=True)
        dense = None if skip else self._density(run)
        if dense:
            return run._replace(at=2 * at, dense=dense)
        return run if len(covering) < len(starts) else None

    def _density(self, run: Run) -> Density | None:
        """How a run of spans can be dense; None if it cannot."""
        if self._family is V4 and len(run.entries) > _bare(run):
            dense = Density.behind(min(_told_bits(run), abi.TABLE_SKIP))
            if dense and max(self._rows) >> dense.row_bits == 0:
                return dense
        return Density.narrow(run.entries)

    def _found(self, run: Run, place: Place, level: int = 0) -> int:
        """The node of a place in a run: a row, a list, or an index that is laid out here."""
        bits = _index_bits(run, place) if level < abi.TABLE_INDEXES else 0
        if not bits:
            return run.node(place)
        at = len(self.cells)
        self.cells.extend([0] * (1 << bits))
        for slot, part in enumerate(run.parts(place, bits)):
            self.cells[at + slot] = self._found(run, part, level + 1)
        return abi.cell(self._offset + at, abi.NODE_INDEX | place.position << abi.NODE_SHIFT | bits)


def _told_bits(run: Run) -> int:
    """How many bits of an address indexes have told before any list of this run is asked."""
    place = Place(0, len(run.entries), 0, 0)
    for _ in range(abi.TABLE_INDEXES):
        bits = _index_bits(run, place)
        if not bits:
            break
        if run.shared_bits(place) - place.position < _BLIND_LEAST:
            return place.position + bits
        several = [part for part in run.parts(place, bits) if run.is_list(part)]
        if len(several) != 1:
            return place.position + bits
        place = several[0]
    return place.position


def _index_bits(run: Run, place: Place) -> int:
    """Of the index of a place; 0 where a list is as quick."""
    count = place.end - place.first
    if place.position < run.skip:
        few = run.is_spans and len(run.entries) < _FEW_V6 and not place.position
        bits = _UNICAST_V6 if few else run.skip - place.position
        return bits if run.is_list(place) else 0
    if count <= _bare(run):
        return 0
    shared = run.shared_bits(place) - place.position
    bits = count.bit_length() - (_SPARSE if place.position else _DENSE)
    if shared >= _BLIND_LEAST:
        bits = min(bits, shared, _BLIND_BITS)
    return min(MAX_INDEX_BITS, run.skip + abi.TABLE_KEY_BITS - place.position, max(1, bits))


def _bare(run: Run) -> int:
    """Up to how many entries in a place have no index."""
    return BARE_SPANS if run.is_spans else BARE_ENTRIES


def _shifted(value: int, bits: int) -> int:
    """Shifted to the right, or to the left if `bits` is negative."""
    return value >> bits if bits >= 0 else value << -bits
