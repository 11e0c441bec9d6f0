# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: which one this is, and work done in another one. Must not know what is done there."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cgnetd.kernel.failure import kernel_error

OWN = Path("/proc/self/ns/net")

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_COOKIE_BYTES = 8

_Result = TypeVar("_Result")


def cookie() -> int:
    """Of the caller's network namespace, as bpf_get_netns_cookie gives it. KernelError before Linux 5.14."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as of_here:
            value = of_here.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE_BYTES)
    except OSError as error:
        raise kernel_error("read the network namespace's cookie", error) from error
    return int.from_bytes(value, sys.byteorder)


def each(paths: Iterable[Path], work: Callable[[], _Result]) -> Iterator[_Result]:
    """What `work` returns in each of these namespaces, each one once. One that is gone is passed over.

    `work` runs in a thread of its own, which is gone when it has returned: the caller's threads stay where they are.
    OSError as setns(2) and `work` raise it.
    """
    seen = set()
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            continue
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                yield _call_in(fd, work)
        finally:
            os.close(fd)


def _call_in(fd: int, work: Callable[[], _Result]) -> _Result:
    def entered() -> _Result:
        _enter(fd)
        return work()

    with ThreadPoolExecutor(max_workers=1) as one:
        return one.submit(entered).result()


def _enter(fd: int) -> None:
    """Move the calling thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
