# SPDX-License-Identifier: Apache-2.0
"""A file descriptor of something of BPF, with its info, pins and end. Must not know what it is used for."""

from __future__ import annotations

import ctypes
import os
from types import TracebackType
from typing import Self, TypeVar

from pybpf.lib import libbpf

_Info = TypeVar("_Info", bound=ctypes.Structure)


class BpfFd:
    """Owns one descriptor. Closing is idempotent; using a closed one is a ValueError."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        if self._fd < 0:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._fd

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin at `path`, which must not exist, on a bpffs."""
        libbpf().bpf_obj_pin(self.fd, os.fsencode(path))


def read_info(fd: int, info: _Info) -> _Info:
    """BPF_OBJ_GET_INFO_BY_FD into `info` (fields that the kernel reads must be set before). Returns it."""
    size = ctypes.c_uint32(ctypes.sizeof(info))
    libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
    return info


def obj_get(path: str | os.PathLike[str]) -> int:
    """A new descriptor of whatever is pinned at `path`; the caller closes it."""
    return libbpf().bpf_obj_get(os.fsencode(path))  # type: ignore[no-any-return]


def pinned_kind(fd: int) -> str:
    """What a descriptor is: "map", "prog" or "link"; "" for anything else."""
    target = os.readlink(f"/proc/self/fd/{fd}")
    for kind in ("map", "prog", "link"):
        if target in (
            f"anon_inode:bpf-{kind}",
            f"anon_inode:[bpf-{kind}]",
            f"anon_inode:bpf_{kind}",
            f"anon_inode:[bpf_{kind}]",
        ):
            return kind
    return ""
