# SPDX-License-Identifier: Apache-2.0
"""What is attached to a cgroup is told in the order it runs."""

from __future__ import annotations

import os

import pytest

from pybpf import AttachType, Link, Program, ProgType, cgroup_programs, instruction
from support.sandbox import PrivateCgroup

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("no_fd_leaks")]


def test_programs_are_told_in_order_and_only_of_this_cgroup(private_cgroup: PrivateCgroup) -> None:
    allow = (instruction(0xB7, immediate=1), instruction(0x95))  # r0 = 1; exit
    fd = os.open(private_cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    hook = AttachType.CGROUP_INET_SOCK_CREATE
    try:
        assert cgroup_programs(fd, hook) == ()
        with (
            Program.from_instructions(ProgType.CGROUP_SOCK, allow, attach_type=hook) as first,
            Program.from_instructions(ProgType.CGROUP_SOCK, allow, attach_type=hook) as second,
            Link.attach_cgroup(first, fd, hook),
            Link.attach_cgroup(second, fd, hook),
        ):
            assert cgroup_programs(fd, hook) == (first.info.id, second.info.id)
            assert cgroup_programs(fd, AttachType.CGROUP_INET4_CONNECT) == ()
    finally:
        os.close(fd)
