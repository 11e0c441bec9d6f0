# SPDX-License-Identifier: Apache-2.0
"""inotify(7) by ctypes: one descriptor, watches, decoded events.

Must not know what is watched or why.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MODIFY = 0x00000002
ATTRIB = 0x00000004
CLOSE_WRITE = 0x00000008
MOVED_FROM = 0x00000040
MOVED_TO = 0x00000080
CREATE = 0x00000100
DELETE = 0x00000200
DELETE_SELF = 0x00000400
MOVE_SELF = 0x00000800
Q_OVERFLOW = 0x00004000
IGNORED = 0x00008000
ONLYDIR = 0x01000000
ISDIR = 0x40000000

_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class InotifyEvent:
    watch: int  # descriptor of the watch, -1 for an overflow of the queue
    mask: int
    name: str  # entry of the watched directory, "" for the directory itself


class Inotify:
    """A non-blocking inotify descriptor. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        """Raises OSError where the kernel's limits are reached."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def add(self, path: str, mask: int) -> int:
        """Watch `path`; the same inode yields the same descriptor and takes the new mask. Raises OSError."""
        found: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        return self._checked(found, path)

    def remove(self, watch: int) -> None:
        """Stop watching; a watch that the kernel has dropped already is no error."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> Iterator[InotifyEvent]:
        """Every event that waits, without blocking."""
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return
            yield from _decode(data)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _checked(result: int, what: str) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)
        return result


def _decode(data: bytes) -> Iterator[InotifyEvent]:
    offset = 0
    while offset < len(data):
        watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        name = data[offset : offset + length].split(b"\0", 1)[0]
        offset += length
        yield InotifyEvent(watch, mask, os.fsdecode(name))
