# SPDX-License-Identifier: Apache-2.0
"""Private network namespaces, gone with everything in them when they are closed. Must not know what is tested."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cgnetd.kernel import netns
from support import libc

_Result = TypeVar("_Result")


class PrivateNetns:
    """Nothing but a descriptor keeps it: no process has to live in it, and no name is left behind."""

    def __init__(self, fd: int) -> None:
        self.path = Path(f"/proc/{os.getpid()}/fd/{fd}")

    def ip(self, *commands: str) -> None:
        """Lines for ip(8), e.g. "link add a type veth peer name b", done in the namespace."""
        enter = ["nsenter", f"--net={self.path}"]
        subprocess.run([*enter, "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def call(self, function: Callable[[], _Result]) -> _Result:
        """The result of `function`, called in a thread of the namespace. Sockets that it makes stay there."""
        (result,) = netns.each([self.path], function)
        return result


def _unshared() -> int:
    libc.unshare(libc.CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def private_netns() -> Iterator[PrivateNetns]:
    """A new one whose loopback device is up."""
    with ThreadPoolExecutor(max_workers=1) as one:  # the thread that leaves is not used for anything else
        fd = one.submit(_unshared).result()
    try:
        made = PrivateNetns(fd)
        made.ip("link set lo up")
        yield made
    finally:
        os.close(fd)
