# SPDX-License-Identifier: Apache-2.0
"""Sets of addresses as sorted ranges of integers: union, difference, membership.

Plain ints and tuples, because a set of a hundred thousand prefixes is usual. Must not know how addresses are written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from .packed import packed
from .types import AddressRanges, Range

V4_LAST = (1 << 32) - 1
V6_LAST = (1 << 128) - 1
MAX_RANGES = 8 << 20  # of all sets together, and of what rules make of them; a few hundred megabytes once compiled
EVERYTHING = AddressRanges(((0, V4_LAST),), ((0, V6_LAST),))


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same numbers as sorted ranges that neither overlap nor touch."""
    ordered = sorted(ranges)
    if not ordered:
        return ()
    result: list[Range] = []
    current = ordered[0]
    last = current[1]
    for item in ordered:
        if item[0] > last + 1:
            result.append(current)
            current = item
            last = item[1]
        elif item[1] > last:
            last = item[1]
            current = (current[0], last)
    result.append(current)
    return tuple(result)


def subtracted(ranges: Sequence[Range], holes: Sequence[Range]) -> tuple[Range, ...]:
    """`ranges` without the numbers in `holes`; both merged, so is the result."""
    result: list[Range] = []
    holes = tuple(holes)  # packed ones are slow to be asked one by one
    at = 0
    for item in ranges:
        first, last = item
        while at < len(holes) and holes[at][1] < first:
            at += 1
        cut = at
        while cut < len(holes) and holes[cut][0] <= last:
            if holes[cut][0] > first:
                result.append((first, holes[cut][0] - 1))
            first = holes[cut][1] + 1
            cut += 1
        if first <= last:
            result.append(item if first == item[0] else (first, last))
    return tuple(result)


def union(parts: Sequence[AddressRanges]) -> AddressRanges:
    """All addresses of all parts; a single part is given back as the same object."""
    if len(parts) == 1:
        return parts[0]
    v4 = merged(item for part in parts for item in part.v4)
    v6 = merged(item for part in parts for item in part.v6)
    return AddressRanges(packed(v4), packed(v6))


def difference(base: AddressRanges, holes: AddressRanges) -> AddressRanges:
    return AddressRanges(packed(subtracted(base.v4, holes.v4)), packed(subtracted(base.v6, holes.v6)))


def size(ranges: AddressRanges) -> int:
    """Number of ranges of both families: what it costs to keep."""
    return len(ranges.v4) + len(ranges.v6)


def within(number: int, ranges: Sequence[Range]) -> bool:
    """Whether one of the merged ranges holds the number."""
    at = bisect_right(ranges, number, key=_first)
    return at > 0 and number <= ranges[at - 1][1]


def _first(item: Range) -> int:
    return item[0]


def covers(ranges: AddressRanges | None, family: int, address: int) -> bool:
    """Whether the address of that family (4 or 6) is in the set; None is the set of all."""
    if ranges is None:
        return True
    return within(address, ranges.v4 if family == 4 else ranges.v6)


def contains(outer: Sequence[Range], inner: Sequence[Range]) -> bool:
    """Whether every number of `inner` is in `outer`; both merged."""
    for first, last in inner:
        at = bisect_right(outer, first, key=_first)
        if at == 0 or last > outer[at - 1][1]:
            return False
    return True
