# SPDX-License-Identifier: Apache-2.0
"""The live cells of one slot as memory that the programs read at the same time. Must not know what a cell means."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pybpf import Map


class LiveTable:
    """A table of 64-bit cells. Each cell is written by one aligned store, so that no program reads half of one.

    It stays the table of the generation it was opened for: after the slot is written or cleared, nobody reads it.
    Using a closed one is a ValueError.
    """

    def __init__(self, table: Map) -> None:
        """Maps `table`, which may be closed afterwards. OSError if it cannot be mapped for writing."""
        self._memory = table.mmap(writable=True)
        self._words = self._memory.words("Q")

    def __len__(self) -> int:
        return len(self._words)

    def cells(self) -> array[int]:
        """A copy."""
        return array("Q", self._words.tolist())

    def set(self, cell: int, value: int) -> None:
        """IndexError beyond the table, ValueError for what is no 64-bit number."""
        if cell < 0:
            raise IndexError(f"no live cell {cell}")
        self._words[cell] = value

    def write(self, cells: Sequence[int]) -> int:
        """Make the table hold these cells, which are all of it (ValueError otherwise). Returns how many were others.

        A copy of the memory as a whole could tear cells: only what differs is stored, one by one.
        """
        if len(cells) != len(self._words):
            raise ValueError(f"{len(cells)} cells for a table of {len(self._words)}")
        changed = 0
        for number, (is_now, wanted) in enumerate(zip(self._words.tolist(), cells, strict=True)):
            if is_now != wanted:
                self._words[number] = wanted
                changed += 1
        return changed

    def close(self) -> None:
        self._words.release()
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
