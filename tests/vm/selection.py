# SPDX-License-Identifier: Apache-2.0
"""Which tests run on other kernels, and what each of them needs of a kernel that not every kernel has.

The one place where a skip in a virtual machine is granted: by the name of a capability that the machine was found to
lack. Anything else that is skipped there fails. Must not import pytest: both ends use it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from cgnetd.kernel import features
from support import libc, uring

# Fifteen minutes in emulation. First what tells most when it fails: every program loaded, every hook attached.
TESTS = (
    "tests/kernel/test_store_attach.py::test_every_hook_attaches_once",
    "tests/kernel/test_store_attach.py::test_map_of_one_object_alone_makes_no_other_program",
    "tests/kernel/test_features.py",
    "tests/kernel/test_unix.py",
    "tests/kernel/test_tcp_tuning.py",
    "tests/kernel/test_socket_options.py",
    "tests/kernel/test_degraded.py",
    "tests/kernel/test_destroy.py",
    "tests/kernel/test_destroy_redirected.py",
    "tests/kernel/test_first_call.py",
    "tests/kernel/test_redirect.py",
    "tests/kernel/test_views.py",
    "tests/kernel/test_bind_rewrite.py",
    "tests/kernel/test_source.py",
    "tests/kernel/test_original_dst.py",
    "tests/kernel/test_cli_flush.py",
    "tests/kernel/test_cases_kernel.py",
    "tests/kernel/test_daemon_services.py::test_calls_go_to_backends_alive_and_to_no_others",
    "tests/kernel/test_daemon_services.py::test_peer_is_what_was_asked_for_over_reloads_and_restarts",
    "tests/kernel/test_daemon.py",
)

# Of these: what takes minutes and would tell of no other kernel than the one of the host.
LEFT_OUT = (
    "tests/kernel/test_cases_kernel.py::*-daemon]",  # labels that the daemon wrote, not the kernel
    "tests/kernel/test_destroy_redirected.py::test_mptcp*",
    "tests/kernel/test_daemon.py::test_half_written_file*",
    "tests/kernel/test_daemon.py::test_editors_save*",
    "tests/kernel/test_daemon.py::test_idle_daemon*",
    "tests/kernel/test_daemon.py::test_restart_with_other_files*",
    "tests/kernel/test_daemon.py::test_second_daemon*",
    "tests/kernel/test_daemon.py::test_set_file*",
    "tests/kernel/test_daemon.py::test_start_with_broken_files*",
)

# Pattern of test ids -> names of capabilities, of cgnetd.kernel.features or of OTHERS.
NEEDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("tests/kernel/test_unix.py::*", ("unix_hooks",)),
    ("tests/kernel/test_destroy*.py::*iterator*", ("sock_destroy",)),
    ("tests/kernel/test_store_attach.py::test_map_of_one_object_alone*", ("sock_destroy",)),
    ("tests/kernel/test_original_dst.py::test_mptcp*", ("mptcp",)),
    ("tests/kernel/test_redirect.py::*fast_open-262-*", ("mptcp_fast_open",)),
    ("tests/kernel/test_cases_kernel.py::*-fast-open-mptcp*", ("mptcp_fast_open",)),
    ("tests/kernel/test_cases_kernel.py::*-io-uring-bind-*", ("io_uring_bind",)),
    ("tests/kernel/test_cases_kernel.py::*selftests-unix-*", ("unix_hooks",)),
    ("tests/kernel/test_cases_kernel.py::*redirect-order-*-unix-*", ("unix_hooks",)),
)


def _has_mptcp_fast_open() -> bool:
    """Linux 6.2."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as made:
            made.sendto(b"", socket.MSG_FASTOPEN, ("127.0.0.1", 1))
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    return True


def _has_io_uring_bind() -> bool:
    """Linux 6.11."""
    try:
        with uring.Ring() as ring, socket.socket() as made:
            return ring.bind(made.fileno(), libc.sockaddr("127.0.0.1", 0)) == 0
    except OSError:
        return False


OTHERS: dict[str, Callable[[], bool]] = {
    "mptcp": lambda: Path("/proc/sys/net/mptcp/enabled").exists(),
    "mptcp_fast_open": _has_mptcp_fast_open,
    "io_uring_bind": _has_io_uring_bind,
}


def capabilities() -> dict[str, bool]:
    """Every capability by name, found by doing. PrivilegeError, KernelError."""
    lacking = features.probe().missing()
    return {
        **{name: name not in lacking for name in features.COSTS},
        **{name: has() for name, has in OTHERS.items()},
    }


def left_out(test_id: str) -> bool:
    return any(fnmatchcase(test_id, pattern) for pattern in LEFT_OUT)


def lacking(test_id: str, present: Iterable[str]) -> tuple[str, ...]:
    """What a test needs and the kernel has not."""
    found = frozenset(present)
    needed = (name for pattern, names in NEEDS if fnmatchcase(test_id, pattern) for name in names)
    return tuple(dict.fromkeys(name for name in needed if name not in found))
