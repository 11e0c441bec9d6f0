# SPDX-License-Identifier: Apache-2.0
"""The pin directory as a place: is it on a bpffs, may we write there. Must not know what is pinned in it.

Names on a bpffs must not hold a dot: the kernel keeps those for itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from cgnetd.errors import KernelError, PinError
from cgnetd.kernel.failure import kernel_error

BPFFS_MAGIC = 0xCAFE4A11
CGROUP2_MAGIC = 0x63677270

_DOT = "(a name on a bpffs cannot hold a dot)"
_ADVICE = "choose one below /sys/fs/bpf; if nothing is mounted there: mount -t bpf bpf /sys/fs/bpf"
_READ_ONLY = (
    "it is read-only; mount -o remount,rw it, or where a service manager protects /sys, name it in ReadWritePaths= of "
    "the unit and let it be there before that starts"
)
_STATFS_BYTES = 256  # struct statfs has 120; f_type is its first word


class OutOfReachError(PinError):
    """The pin directory cannot be made or written from where this process runs; from elsewhere it may be."""

    exit_code = 75  # EX_TEMPFAIL


def filesystem_magic(path: str | os.PathLike[str]) -> int:
    """f_type of statfs(2). OSError as the call gives it."""
    buffer = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))
    return int(buffer[0]) & 0xFFFFFFFF


def check_pin_dir(path: Path) -> bool:
    """Whether the pin directory exists. PinError if it (or the directory it would stand in) is not on a bpffs."""
    try:
        place = path if path.exists() else path.parent
    except PermissionError as error:
        raise PinError(f"use pin directory {path}: {error.strerror} {_DOT}") from error
    if not place.is_dir():
        raise PinError(f"use pin directory {path}: {place} is not a directory; {_ADVICE}")
    if filesystem_magic(place) != BPFFS_MAGIC:
        raise PinError(f"use pin directory {path}: {place} is not on a bpffs; {_ADVICE}")
    return place == path


def make_pin_dir(path: Path) -> None:
    """Make the pin directory if it is not there. PinError if it cannot be used, OutOfReachError if not from here."""
    exists = check_pin_dir(path)
    if os.statvfs(path if exists else path.parent).f_flag & os.ST_RDONLY:
        raise OutOfReachError(f"use pin directory {path}: {_READ_ONLY}")
    make_dir(path)


def make_dir(path: Path) -> None:
    """mkdir that is content with what exists already."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PinError(f"make directory {path}: {error.strerror} {_DOT}") from error
        raise kernel_error(f"make directory {path}", error) from error


def is_fresh(path: Path) -> bool:
    """Whether nobody has pinned anything in the pin directory: it is empty, or not there."""
    try:
        return not any("." not in name for name in os.listdir(path))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def remove_dir(path: Path) -> bool:
    """rmdir; False if it is still there: something is left in it, or it may be written but not removed, as it is where
    a service manager mounted it over itself. An absent one is fine."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EBUSY, errno.EROFS):
            return False
        raise KernelError(f"remove directory {path}: {error.strerror}") from error
    return True
