# SPDX-License-Identifier: Apache-2.0
"""Which tests run on other kernels, what each of them needs of a kernel that not every kernel has, and what it uses.

The one place where a skip in a virtual machine is granted: by the name of a capability that the machine was found to
lack. Anything else that is skipped there fails. Must not import pytest: both ends use it. Names are those of
capabilities.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from cgnetd.kernel import features

# Twenty minutes in emulation. First what tells most when it fails: every program loaded, every hook attached.
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
    "tests/kernel/test_picked_ports.py",
    "tests/kernel/test_plain.py::test_each_is_judged_by_itself_whatever_became_of_those_before",
    "tests/kernel/test_plain.py::test_cgroup_whose_label_is_gone_is_denied_at_once",
    "tests/kernel/test_labelling.py",
    "tests/kernel/test_storm_subtree.py",
    "tests/kernel/test_source.py",
    "tests/kernel/test_original_dst.py",
    "tests/kernel/test_neighbours.py",
    "tests/kernel/test_daemon_beside.py",
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
    "tests/kernel/test_daemon_beside.py::test_others_stay_where_they_are_whatever_is_done",
    "tests/kernel/test_daemon.py::test_half_written_file*",
    "tests/kernel/test_daemon.py::test_editors_save*",
    "tests/kernel/test_daemon.py::test_idle_daemon*",
    "tests/kernel/test_daemon.py::test_restart_with_other_files*",
    "tests/kernel/test_daemon.py::test_second_daemon*",
    "tests/kernel/test_daemon.py::test_set_file*",
    "tests/kernel/test_daemon.py::test_start_with_broken_files*",
)

Patterns = tuple[tuple[str, tuple[str, ...]], ...]

# Pattern of test ids -> what they cannot do without.
NEEDS: Patterns = (
    ("tests/kernel/test_unix.py::*", ("unix_hooks",)),
    ("tests/kernel/test_destroy*.py::*iterator*", ("sock_destroy",)),
    ("tests/kernel/test_store_attach.py::test_map_of_one_object_alone*", ("sock_destroy",)),
    ("tests/kernel/test_original_dst.py::test_mptcp*", ("mptcp",)),
    ("tests/kernel/test_redirect.py::*fast_open-262-*", ("mptcp_fast_open",)),
    ("tests/kernel/test_cases_kernel.py::*-fast-open-mptcp*", ("mptcp_fast_open",)),
    ("tests/kernel/test_cases_kernel.py::*-io-uring-bind-*", ("io_uring_bind",)),
    ("tests/kernel/test_neighbours.py::test_those_that_ask_to_run_first*", ("preorder",)),
    ("tests/kernel/test_daemon_beside.py::*PREORDER*", ("preorder",)),
    ("tests/kernel/test_cases_kernel.py::*selftests-unix-*", ("unix_hooks",)),
    ("tests/kernel/test_cases_kernel.py::*redirect-order-*-unix-*", ("unix_hooks",)),
)

# Pattern of test ids -> what they use where it is there, and do without where it is not.
USES: Patterns = (
    ("tests/kernel/*", features.REQUIRED),
    ("tests/kernel/test_degraded.py::*", ("set_retval",)),
    ("tests/kernel/test_first_call.py::*", ("set_retval", "rdonly_cast")),
    ("tests/kernel/test_cases_kernel.py::*", ("set_retval", "rdonly_cast")),
    ("tests/kernel/test_tcp_tuning.py::*", ("sock_ops",)),
    ("tests/kernel/test_original_dst.py::*", ("sock_ops", "getsockopt")),
    ("tests/kernel/test_destroy*.py::*", ("sock_destroy",)),
    ("*mptcp*", ("mptcp",)),
    ("tests/kernel/test_redirect.py::*262*", ("mptcp",)),
)


def left_out(test_id: str) -> bool:
    return any(fnmatchcase(test_id, pattern) for pattern in LEFT_OUT)


def needed(test_id: str) -> tuple[str, ...]:
    """The capabilities that a test cannot do without."""
    return _named(NEEDS, test_id)


def used(test_id: str) -> tuple[str, ...]:
    """The capabilities that a test uses, the needed ones among them."""
    return tuple(dict.fromkeys((*needed(test_id), *_named(USES, test_id))))


def lacking(test_id: str, present: Iterable[str]) -> tuple[str, ...]:
    """What a test needs and the kernel has not."""
    found = frozenset(present)
    return tuple(name for name in needed(test_id) if name not in found)


def _named(patterns: Patterns, test_id: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pattern, names in patterns if fnmatchcase(test_id, pattern) for name in names))
