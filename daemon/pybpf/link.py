# SPDX-License-Identifier: Apache-2.0
"""A BPF link: what holds a program at its hook. Must not know of maps or object files."""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_size_t, c_uint32, c_void_p
from typing import ClassVar, Self

from pybpf.constants import AttachType, LinkType, ProgType
from pybpf.errors import BpfError
from pybpf.fd import BpfFd, obj_get, pinned_kind
from pybpf.info import LinkInfo, link_info
from pybpf.lib import libbpf
from pybpf.map import Map
from pybpf.program import Program

_ITERATOR_BYTES = 1 << 16
_CGROUP_TYPES = {
    ProgType.CGROUP_SOCK,
    ProgType.CGROUP_SOCK_ADDR,
    ProgType.CGROUP_SKB,
    ProgType.CGROUP_SOCKOPT,
    ProgType.SOCK_OPS,
}


class _UpdateOpts(ctypes.Structure):
    _fields_: ClassVar = [("sz", c_size_t), ("flags", c_uint32), ("old_prog_fd", c_uint32)]


class _IteratorInfo(ctypes.Structure):
    """union bpf_iter_link_info, of which the kernel reads what the iterator needs."""

    _fields_: ClassVar = [("map_fd", c_uint32), ("rest", c_uint32 * 3)]


class _CreateOpts(ctypes.Structure):
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
    ]


class Link(BpfFd):
    """A link. When its last descriptor and its last pin are gone, the program is detached."""

    @classmethod
    def attach_cgroup(cls, program: Program, cgroup_fd: int, attach_type: int) -> Self:
        """Attach beside whatever is there. BpfError EPERM where a program attached without a link forbids others."""
        return cls(libbpf().bpf_link_create(program.fd, cgroup_fd, attach_type, None))

    @classmethod
    def attach_raw_tracepoint(cls, program: Program, name: str | None = None) -> Self:
        """Attach a raw tracepoint program to `name`, or a tp_btf program (name None) to the one it was loaded for."""
        return cls(libbpf().bpf_raw_tracepoint_open(name.encode() if name else None, program.fd))

    @classmethod
    def attach_iterator(cls, program: Program, over: Map | None = None) -> Self:
        """For a program of the section "iter/...": nothing runs yet, see `iterate`. `over`: a map to walk."""
        if over is None:
            return cls(libbpf().bpf_link_create(program.fd, 0, AttachType.TRACE_ITER, None))
        which = _IteratorInfo(over.fd)
        opts = _CreateOpts(sz=ctypes.sizeof(_CreateOpts), iter_info=ctypes.addressof(which))
        opts.iter_info_len = ctypes.sizeof(which)
        return cls(libbpf().bpf_link_create(program.fd, 0, AttachType.TRACE_ITER, ctypes.byref(opts)))

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Self:
        """The link pinned at `path`. BpfError ENOENT, or EINVAL if something else is pinned there."""
        fd = obj_get(path)
        if pinned_kind(fd) != "link":
            os.close(fd)
            raise BpfError(errno.EINVAL, "bpf_obj_get", f"{os.fspath(path)} is not a link")
        return cls(fd)

    @classmethod
    def from_id(cls, link_id: int) -> Self:
        return cls(libbpf().bpf_link_get_fd_by_id(link_id))

    def info(self) -> LinkInfo:
        """As it is now: program and cgroup can change."""
        return link_info(self.fd)

    def update(self, program: Program) -> None:
        """Put `program` in the place of the one attached, without a gap.

        The kernel compares program types only: it would let a bind program into a connect link. So the attach type
        that the program was loaded for must be known and equal the link's; ValueError otherwise.
        BpfError ENOLINK: the cgroup is gone, or the link was detached.
        """
        info = self.info()
        if info.type != LinkType.CGROUP or program.info.type not in _CGROUP_TYPES:
            raise ValueError(f"only links of programs on cgroups can be updated, not link {info.id}")
        if program.attach_type != info.attach_type:
            wanted = f"program {program.info.name} is for attach type {program.attach_type}"
            raise ValueError(f"{wanted}, link {info.id} has {info.attach_type}")
        opts = _UpdateOpts(sz=ctypes.sizeof(_UpdateOpts))
        libbpf().bpf_link_update(self.fd, program.fd, ctypes.byref(opts))

    def iterate(self) -> bytes:
        """Run an iterator once over everything, and return what the program wrote.

        Sockets are those of the calling thread's network namespace. BpfError, OSError.
        """
        with BpfFd(libbpf().bpf_iter_create(self.fd)) as steps:
            written = bytearray()
            while part := os.read(steps.fd, _ITERATOR_BYTES):
                written += part
        return bytes(written)

    def detach(self) -> None:
        """Detach at once, whoever else holds the link. BpfError EOPNOTSUPP for raw tracepoints."""
        libbpf().bpf_link_detach(self.fd)
