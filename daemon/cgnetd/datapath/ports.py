# SPDX-License-Identifier: Apache-2.0
"""Port lists: for a list of rules in order, which one decides each port.

A list is cells `first port | rule reference`, sorted, the first at port 0; a single range is in the row itself. Key 0
is "port 0": what `ephemeral` and rules without ports match. Equal lists are one. A list that every call asks can have
an index by the first bits of the port. Must not know of addresses.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from cgnetd.datapath import abi
from cgnetd.datapath.budget import Budget
from cgnetd.policy.types import Range, Rule

LAST_PORT = 65535
PORT_BITS = 16
INDEXED_ENTRIES = 6  # from here on an index is worth its cells, so many bits more than there are entries for
_SPARSE_BITS, _MAX_INDEX_BITS = 2, 10
EVERY_PORT: tuple[Range, ...] = ((0, LAST_PORT),)
EPHEMERAL: Range = (0, 0)
_AROUND_ONE = ([True, False, True], [True, False], [False, True])  # where nothing is decided, and where something is


def port_ranges(rule: Rule) -> tuple[Range, ...]:
    """What the rule matches, as ranges of list keys 0..65535."""
    if rule.ports is None:
        return EVERY_PORT
    return (EPHEMERAL, *rule.ports) if rule.ephemeral else rule.ports


def first_match(ranges: Sequence[tuple[int, int, int]], fallback: int) -> list[tuple[int, int]]:
    """Sweep `(first, last, reference)` ranges: the lowest reference wins, `fallback` where none matches.

    Returns `(first port, reference)` pairs, sorted, the first at 0, neighbours with different references.
    """
    if len(ranges) == 1:  # the usual case, in a third of the time
        return _alone(*ranges[0], fallback)
    waiting = sorted(ranges)
    if all(one[1] < other[0] for one, other in pairwise(waiting)):
        return _apart(waiting, fallback)
    boundaries = sorted({0, *(r[0] for r in waiting), *(r[1] + 1 for r in waiting if r[1] < LAST_PORT)})
    live: list[tuple[int, int]] = []
    found: list[tuple[int, int]] = []
    upcoming = 0
    for port in boundaries:
        while upcoming < len(waiting) and waiting[upcoming][0] == port:
            heapq.heappush(live, (waiting[upcoming][2], waiting[upcoming][1]))
            upcoming += 1
        while live and live[0][1] < port:
            heapq.heappop(live)
        reference = live[0][0] if live else fallback
        if not found or found[-1][1] != reference:
            found.append((port, reference))
    return found


def _range_cell(found: Sequence[tuple[int, int]]) -> int:
    """The cell of the only range that decides anything."""
    at = 0 if found[0][1] != abi.REF_NONE else 1
    first, reference = found[at]
    last = found[at + 1][0] - 1 if at + 1 < len(found) else LAST_PORT
    return abi.cell(abi.PORTS_RANGE | reference, first << 16 | last)


def _alone(first: int, last: int, reference: int, fallback: int) -> list[tuple[int, int]]:
    """`first_match` of a single range."""
    if reference == fallback:
        return [(0, fallback)]
    before = [(0, fallback)] if first > 0 else []
    behind = [(last + 1, fallback)] if last < LAST_PORT else []
    return [*before, (first, reference), *behind]


def _apart(ranges: Sequence[tuple[int, int, int]], fallback: int) -> list[tuple[int, int]]:
    """`first_match` of sorted ranges none of which meet, in a fifth of the time."""
    found: list[tuple[int, int]] = []
    port, before = 0, -1
    for first, last, reference in ranges:
        if port < first and before != fallback:
            found.append((port, fallback))
            before = fallback
        if reference != before:
            found.append((first, reference))
            before = reference
        port = last + 1
    if port <= LAST_PORT and before != fallback:
        found.append((port, fallback))
    return found


class PortLists:
    """Every port list of one policy, shared by content. `cells` is their part of the blob, from offset 0."""

    def __init__(self, budget: Budget) -> None:
        self.cells = array("Q")
        self._budget = budget
        self._by_content: dict[bytes, int] = {}
        self._indexes: dict[int, int] = {}  # cells of lists -> cells of their indexes

    @property
    def count(self) -> int:
        """Distinct lists so far."""
        return len(self._by_content)

    def add(self, ranges: Sequence[tuple[int, int, int]], fallback: int) -> int:
        """The row's cell for what these ranges make: a reference, one for a range of ports, or a list that is laid out
        once."""
        found = first_match(ranges, fallback)
        if len(found) == 1:
            return found[0][1] << 32
        if [port_and_reference[1] == abi.REF_NONE for port_and_reference in found] in _AROUND_ONE:
            return _range_cell(found)
        entries = array("Q", [port << 32 | reference for port, reference in found])
        content = entries.tobytes()
        known = self._by_content.get(content)
        if known is None:
            self._budget.spend_cells(len(entries))
            known = self._by_content[content] = len(self.cells) << 32 | len(entries)
            self.cells.extend(entries)
        return known

    def indexed(self, cell: int) -> int:
        """The cell by which a long list is found through an index; any other cell is returned as it is."""
        count = abi.lo(cell)
        if abi.hi(cell) & abi.PORTS_RANGE or count < INDEXED_ENTRIES:
            return cell
        known = self._indexes.get(cell)
        if known is None:
            shift = PORT_BITS - min(_MAX_INDEX_BITS, count.bit_length() + _SPARSE_BITS)
            parts = self._parts(abi.hi(cell), count, shift)
            self._budget.spend_cells(len(parts))
            known = self._indexes[cell] = abi.cell(len(self.cells), abi.PORTS_INDEX | shift)
            self.cells.extend(parts)
        return known

    def _parts(self, at: int, count: int, shift: int) -> list[int]:
        """The cells of an index over the list at `at`: what there is of the list for each value of the first bits."""
        entries = self.cells[at : at + count]
        parts = []
        for begin in range(0, LAST_PORT + 1, 1 << shift):
            first = bisect_left(entries, begin + 1 << 32) - 1
            end = bisect_left(entries, begin + (1 << shift) << 32)
            alone = end - first == 1
            parts.append(abi.cell(abi.lo(entries[first]), 0) if alone else abi.cell(at + first, end - first))
        return parts
