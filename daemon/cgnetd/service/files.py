# SPDX-License-Identifier: Apache-2.0
"""Reading whole files that somebody else may be writing.

Must not know what is in them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from dataclasses import dataclass
from typing import NamedTuple

LARGEST_BYTES = 256 * 1024 * 1024
_ATTEMPTS = 5
_HOW = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO of that name must not hold the daemon


class BeingWritten(OSError):
    """Somebody has the file open for writing: what it holds now may be half of what it will hold."""


class TooLarge(OSError):
    """The file has more bytes than are accepted."""


class Stamp(NamedTuple):
    """What tells whether a file is the one that was read. All zero: there is none."""

    path: str
    device: int = 0
    inode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


@dataclass(frozen=True, slots=True)
class FileContent:
    stamp: Stamp
    data: bytes

    @property
    def path(self) -> str:
        return self.stamp.path


def stamp(path: str) -> Stamp:
    """The stamp of what `path` leads to now; never raises."""
    try:
        return _stamp(path, os.stat(path))
    except OSError:
        return Stamp(path)


def read_whole(path: str, largest_bytes: int = LARGEST_BYTES) -> FileContent:
    """Read a regular file as one consistent whole.

    Raises BeingWritten while it is open for writing, TooLarge, OSError if it cannot be read or is no regular file.
    """
    fd = os.open(path, _HOW)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        _hold_writers(fd)
        return _read_stable(path, fd, largest_bytes)
    finally:
        os.close(fd)  # gives the lease up


def read_now(path: str, largest_bytes: int) -> bytes:
    """What a regular file, or /dev/null, holds now, perhaps not as a whole. Waits for nobody.

    Raises TooLarge, OSError if it cannot be read or is anything else.
    """
    fd = os.open(path, _HOW)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):
            raise OSError("not a regular file")
        data = _read_all(fd, largest_bytes) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(fd)
    if len(data) > largest_bytes:
        raise TooLarge(f"too large: accepted are up to {largest_bytes} bytes")
    return data


def still_holds(content: FileContent) -> bool:
    """Whether a file, of whose stamp that is known, holds what it held. Never raises.

    Cheaper than reading it as a whole: what is equal to a consistent whole is one.
    """
    try:
        fd = os.open(content.path, _HOW)
        try:
            return os.read(fd, len(content.data) + 1) == content.data
        finally:
            os.close(fd)
    except OSError:
        return False


def _hold_writers(fd: int) -> None:
    """Take a read lease: the kernel refuses it while a writer is there, and lets new writers wait until we are done.

    Where leases are not offered (some file systems, files of other users without CAP_LEASE), comparing stamps must do.
    """
    try:
        # A waiting writer would have us sent SIGIO, which kills; SIGURG is ignored unless asked for.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError as error:
        raise BeingWritten("open for writing: not read before its writer has closed it") from error
    except OSError:
        return


def _read_stable(path: str, fd: int, largest_bytes: int) -> FileContent:
    for _ in range(_ATTEMPTS):
        before = os.fstat(fd)
        if before.st_size > largest_bytes:
            raise TooLarge(f"too large: {before.st_size} bytes, accepted are up to {largest_bytes}")
        data = _read_all(fd, largest_bytes)
        after = _stamp(path, os.fstat(fd))
        if after == _stamp(path, before) and len(data) == after.size:
            return FileContent(after, data)
    raise BeingWritten("changes while it is read")


def _read_all(fd: int, largest_bytes: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb", closefd=False) as stream:
        return stream.read(largest_bytes + 1)


def _stamp(path: str, status: os.stat_result) -> Stamp:
    return Stamp(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
