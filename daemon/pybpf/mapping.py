# SPDX-License-Identifier: Apache-2.0
"""Memory of an mmapable map. Must not know what is in it."""

from __future__ import annotations

import mmap
from types import TracebackType
from typing import Self


class Mapping:
    """A shared mapping of a map's values: what is written is in the kernel at once.

    `bytes` is the memory (read-only unless asked otherwise); views cast from it must be released before `close`.
    A frozen map cannot be mapped for writing, and a map that is mapped for writing cannot be frozen.
    """

    def __init__(self, fd: int, size: int, *, writable: bool) -> None:
        self._memory = mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        self.bytes = memoryview(self._memory)

    def words(self, code: str = "Q") -> memoryview:
        """The memory as an array of integers of the struct code."""
        return self.bytes.cast(code)  # type: ignore[call-overload, no-any-return]

    def close(self) -> None:
        self.bytes.release()
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
