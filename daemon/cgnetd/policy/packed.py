# SPDX-License-Identifier: Apache-2.0
"""Long lists of address ranges in little memory: 8 bytes for an IPv4 range, 32 for an IPv6 one, instead of 140.

What was read of a set is kept while its file stays as it is. Must not know where ranges come from.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Union, overload

from .types import Range

PACKED_FROM = 256  # ranges; below, a tuple is quicker and its size does not matter
_WORD_LAST = (1 << 32) - 1
_HALF = 64
_HALF_LAST = (1 << _HALF) - 1

_Column = Union["array[int]", tuple["array[int]", "array[int]"]]  # 32 bits each, or upper and lower halves of 128


def packed(ranges: Sequence[Range]) -> Sequence[Range]:
    """The same sorted ranges, packed if they are many. Equal only to what was made by this function."""
    return PackedRanges(ranges) if len(ranges) >= PACKED_FROM and not isinstance(ranges, PackedRanges) else ranges


class PackedRanges(Sequence[Range]):
    """Sorted ranges of numbers below 2^128; each is made anew when it is asked for. Immutable."""

    __slots__ = ("_firsts", "_hash", "_lasts")

    def __init__(self, ranges: Sequence[Range]) -> None:
        wide = ranges[-1][1] > _WORD_LAST
        self._firsts = _column([first for first, _ in ranges], wide=wide)
        self._lasts = _column([last for _, last in ranges], wide=wide)
        self._hash: int | None = None

    def __len__(self) -> int:
        return len(self._firsts[0]) if isinstance(self._firsts, tuple) else len(self._firsts)

    def __iter__(self) -> Iterator[Range]:
        return zip(_numbers(self._firsts), _numbers(self._lasts), strict=True)

    @overload
    def __getitem__(self, index: int) -> Range: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Range, ...]: ...

    def __getitem__(self, index: int | slice) -> Range | tuple[Range, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(len(self))[index])
        return _number(self._firsts, index), _number(self._lasts, index)

    def parts(self) -> Iterator[memoryview]:
        """All of it as bytes, the same for equal ranges within one machine."""
        for column in (self._firsts, self._lasts):
            yield from (memoryview(half) for half in (column if isinstance(column, tuple) else (column,)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedRanges):
            return NotImplemented
        return self is other or (self._firsts == other._firsts and self._lasts == other._lasts)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(tuple(part.tobytes() for part in self.parts()))
        return self._hash


def _column(numbers: list[int], *, wide: bool) -> _Column:
    if not wide:
        return array("I", numbers)
    return array("Q", [number >> _HALF for number in numbers]), array("Q", [number & _HALF_LAST for number in numbers])


def _numbers(column: _Column) -> Iterator[int]:
    if isinstance(column, tuple):
        return (high << _HALF | low for high, low in zip(*column, strict=True))
    return iter(column)


def _number(column: _Column, index: int) -> int:
    if isinstance(column, tuple):
        return column[0][index] << _HALF | column[1][index]
    return column[index]
