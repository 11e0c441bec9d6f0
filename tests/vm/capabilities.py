# SPDX-License-Identifier: Apache-2.0
"""What a kernel offers that some kernels do not, found by doing, and what is lost without it.

Must not import pytest nor know which tests there are: every end of a run uses it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cgnetd.kernel import features
from support import libc, sandbox, uring
from support.foreign import Flags, Says, foreign


@dataclass(frozen=True, slots=True)
class Other:
    """What only tests use, beside the features that cgnetd itself looks for."""

    has: Callable[[], bool]
    cost: str


def _has_mptcp_fast_open() -> bool:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as made:
            made.sendto(b"", socket.MSG_FASTOPEN, ("127.0.0.1", 1))
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    return True


def _has_io_uring_bind() -> bool:
    try:
        with uring.Ring() as ring, socket.socket() as made:
            return ring.bind(made.fileno(), libc.sockaddr("127.0.0.1", 0)) == 0
    except OSError:
        return False


def _has_preorder() -> bool:
    try:
        with sandbox.cgroup() as made, foreign(made.path, Says.ALLOW, flags=Flags.MULTI | Flags.PREORDER):
            return True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return False


OTHERS: dict[str, Other] = {
    "mptcp": Other(
        lambda: Path("/proc/sys/net/mptcp/enabled").exists(),
        "nothing: there are no MPTCP sockets to govern (CONFIG_MPTCP=y, Linux 5.6)",
    ),
    "mptcp_fast_open": Other(_has_mptcp_fast_open, "nothing: MPTCP sockets refuse fast open (Linux 6.2)"),
    "io_uring_bind": Other(_has_io_uring_bind, "nothing: io_uring cannot bind (Linux 6.11)"),
    "preorder": Other(_has_preorder, "nothing: programs of others cannot ask to run first (Linux 6.15)"),
}


def capabilities() -> dict[str, bool]:
    """Every capability by name. PrivilegeError, KernelError."""
    lacking = features.probe().missing()
    return {
        **{name: name not in lacking for name in features.COSTS},
        **{name: other.has() for name, other in OTHERS.items()},
    }


def costs() -> dict[str, str]:
    """What is lost without each capability, in the order of `capabilities`."""
    return {**features.COSTS, **{name: other.cost for name, other in OTHERS.items()}}
