# SPDX-License-Identifier: Apache-2.0
"""What enforcement is compared with: programs that allow everything in two instructions, among others of a host.

Must not measure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pybpf import AttachType, Link, Program, ProgType, instruction

_ATTACH_TYPES = (
    *(AttachType.CGROUP_UDP4_SENDMSG, AttachType.CGROUP_UDP6_SENDMSG),
    *(AttachType.CGROUP_INET4_CONNECT, AttachType.CGROUP_INET6_CONNECT),
    *(AttachType.CGROUP_INET4_BIND, AttachType.CGROUP_INET6_BIND),
)
_ALLOW = (instruction(0xB7, immediate=1), instruction(0x95))  # r0 = 1; exit
_NEIGHBOURS = 32
_NEIGHBOUR = (*[instruction(0xB7, immediate=1)] * 300, instruction(0x95))  # some 2 KiB of machine code


@contextmanager
def neighbours() -> Iterator[None]:
    """Programs that are attached nowhere, about as many as systemd loads on any host, 48 KiB together.

    The kernel packs all programs into one place, each where there is room first.
    """
    with ExitStack() as loaded:
        for _ in range(_NEIGHBOURS):
            loaded.enter_context(Program.from_instructions(ProgType.SOCKET_FILTER, _NEIGHBOUR, name="neighbour"))
        yield


class EmptyPrograms:
    """Loaded; attached to the cgroup at `path` only inside `attached`. Needs closing."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as undo:
            self._cgroup_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, self._cgroup_fd)
            self._programs = {
                kind: undo.enter_context(
                    Program.from_instructions(ProgType.CGROUP_SOCK_ADDR, _ALLOW, name="empty", attach_type=kind)
                )
                for kind in _ATTACH_TYPES
            }
            self._stack = undo.pop_all()

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as links:
            for kind, program in self._programs.items():
                links.enter_context(Link.attach_cgroup(program, self._cgroup_fd, kind))
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
