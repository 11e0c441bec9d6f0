# SPDX-License-Identifier: Apache-2.0
"""Reading a BPF ring buffer. Must not know what the records mean."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pybpf.errors import BpfError
from pybpf.lib import SAMPLE_CALLBACK, libbpf
from pybpf.map import Map

_STOP = -errno.ECANCELED


class RingBuffer:
    """The consumer's side of a ring buffer, one at a time. `epoll_fd` is readable when there is something."""

    def __init__(self, ring: Map, callback: Callable[[bytes], None]) -> None:
        self._callback = callback
        self._error: BaseException | None = None
        self._count = 0
        self._limit = 0
        self._sample = SAMPLE_CALLBACK(self._on_sample)  # must live as long as the ring
        self._handle: int | None = libbpf().ring_buffer__new(ring.fd, self._sample, None, None)

    @property
    def epoll_fd(self) -> int:
        if self._handle is None:
            raise ValueError("RingBuffer is closed")
        return int(libbpf().ring_buffer__epoll_fd(self._handle))

    def consume(self, limit: int = 0) -> int:
        """Hand each waiting record to the callback, at most `limit` (0: all). Returns how many.

        An exception of the callback comes out of here; its record counts as read, those behind it wait.
        """
        if self._handle is None:
            raise ValueError("RingBuffer is closed")
        self._count, self._limit, self._error = 0, limit, None
        try:
            libbpf().ring_buffer__consume(self._handle)
        except BpfError as error:
            if error.errno != -_STOP:
                raise
        if self._error is not None:
            failure, self._error = self._error, None
            raise failure
        return self._count

    def _on_sample(self, _context: int, data: int, size: int) -> int:
        # An exception must not cross the C frames: ctypes would print and drop it.
        try:
            self._count += 1
            self._callback(ctypes.string_at(data, size))
        except BaseException as error:
            self._error = error
            return _STOP
        return _STOP if self._count == self._limit else 0

    def close(self) -> None:
        if self._handle is not None:
            libbpf().ring_buffer__free(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
