# SPDX-License-Identifier: Apache-2.0
"""The kernel takes each of our programs at its own hook alone, so that none can run where it was not meant to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.kernel.features import Features
from cgnetd.kernel.hooks import HOOKS, Hook
from cgnetd.kernel.programs import Programs, use_maps
from cgnetd.kernel.store import Store
from pybpf import AttachType, BpfError, Link, Object
from support.sandbox import PrivateCgroup

CGROUP_HOOKS = [hook for hook in HOOKS.values() if not hook.tracepoint]
NEVER_OURS = [AttachType.CGROUP_SETSOCKOPT, AttachType.CGROUP_UNIX_GETSOCKNAME]

# The other family's hook does not have the words of the address that the program reads.
OF_THE_OTHER_FAMILY = [
    ("connect4", AttachType.CGROUP_INET6_CONNECT),
    ("connect6", AttachType.CGROUP_INET4_CONNECT),
    ("bind4", AttachType.CGROUP_INET6_BIND),
    ("bind6", AttachType.CGROUP_INET4_BIND),
    ("sendmsg4", AttachType.CGROUP_UDP6_SENDMSG),
    ("getpeername6", AttachType.CGROUP_INET4_GETPEERNAME),
    ("post_bind6", AttachType.CGROUP_INET4_POST_BIND),
]


@pytest.fixture
def cgroup_fd(private_cgroup: PrivateCgroup) -> Iterator[int]:
    fd = os.open(private_cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def accepted_at(programs: Programs, hook: Hook, cgroup_fd: int) -> set[AttachType]:
    """The attach types of all of `CGROUP_HOOKS` and others that the kernel takes a program at, or fails at otherwise
    than by EINVAL."""
    taken = set()
    for attach_type in {other.attach_type for other in CGROUP_HOOKS} | set(NEVER_OURS):
        number: int | None = 0
        try:
            Link.attach_cgroup(programs.program(hook.name), cgroup_fd, attach_type).close()
        except BpfError as error:
            number = error.errno
        if number != errno.EINVAL:
            taken.add(attach_type)
    return taken


@pytest.mark.parametrize("hook", CGROUP_HOOKS, ids=lambda hook: hook.name)
def test_program_is_taken_at_its_own_hook_alone(
    hook: Hook, store: Store, kernel_features: Features, objects: Path, cgroup_fd: int
) -> None:
    if hook.name in kernel_features.lacking_hooks():
        pytest.skip(f"this kernel has no {hook.name}")
    with Programs(store, kernel_features, objects) as programs:
        assert accepted_at(programs, hook, cgroup_fd) == {hook.attach_type}


@pytest.mark.parametrize(("name", "attach_type"), OF_THE_OTHER_FAMILY, ids=[name for name, _ in OF_THE_OTHER_FAMILY])
def test_program_for_the_hook_of_the_other_family_is_not_loaded(
    name: str, attach_type: AttachType, store: Store, objects: Path
) -> None:
    path = objects / f"{HOOKS[name].object}.bpf.o"
    with Object(path) as opened:
        for other, program in opened.programs.items():
            program.set_autoload(other == name)
        opened.programs[name].set_type(HOOKS[name].prog_type, attach_type)
        use_maps(opened, path, store)
        with pytest.raises(BpfError, match="bpf_object__load"):
            opened.load()
