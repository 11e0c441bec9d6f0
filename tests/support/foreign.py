# SPDX-License-Identifier: Apache-2.0
"""Programs of somebody else on a cgroup: attached by a link, or without one and with any flags, and taken away again.

Must not know cgnetd.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pybpf import AttachType, Link, Program, ProgType, instruction

_MOVE, _CALL, _EXIT = 0xB7, 0x85, 0x95
_SET_RETVAL = 187


class Flags(enum.IntFlag):
    """Of BPF_PROG_ATTACH, as <linux/bpf.h> has them."""

    NONE = 0
    OVERRIDE = 1 << 0
    MULTI = 1 << 1
    PREORDER = 1 << 6


class Says(enum.Enum):
    """What a program does to every call."""

    ALLOW = (instruction(_MOVE, immediate=1), instruction(_EXIT))
    DENY = (instruction(_MOVE, immediate=0), instruction(_EXIT))
    PARDON = (  # takes back what a program before it denied
        instruction(_MOVE, 1, immediate=0),
        instruction(_CALL, immediate=_SET_RETVAL),
        instruction(_MOVE, immediate=1),
        instruction(_EXIT),
    )


def load(says: Says, name: str, attach_type: AttachType, kind: ProgType = ProgType.CGROUP_SOCK_ADDR) -> Program:
    """The caller closes it."""
    return Program.from_instructions(kind, says.value, name=name, attach_type=attach_type)


@contextmanager
def foreign(
    path: Path,
    says: Says,
    *,
    name: str = "foreign",
    flags: Flags | None = None,
    attach_type: AttachType = AttachType.CGROUP_INET4_CONNECT,
    kind: ProgType = ProgType.CGROUP_SOCK_ADDR,
) -> Iterator[int]:
    """A program on the cgroup at `path`: its id. With `flags` it is attached without a link. OSError if refused."""
    with ExitStack() as undo:
        program = undo.enter_context(load(says, name, attach_type, kind))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        undo.callback(os.close, fd)
        if flags is None:
            undo.enter_context(Link.attach_cgroup(program, fd, attach_type))
        else:
            _call("bpf_prog_attach", program.fd, fd, int(attach_type), int(flags))
            undo.callback(_call, "bpf_prog_detach2", program.fd, fd, int(attach_type))
        yield program.info.id


def _call(name: str, *arguments: int) -> None:
    """One of libbpf's calls that answer 0 or a negative errno."""
    result = getattr(ctypes.CDLL("libbpf.so.1"), name)(*arguments)
    if result < 0:
        raise OSError(-result, f"{name}: {os.strerror(-result)}")
