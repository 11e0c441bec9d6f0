# SPDX-License-Identifier: Apache-2.0
"""A BPF map as a descriptor: create, look up, change, walk, map into memory. Must not know of objects or programs.

Keys and values are bytes of exactly the map's sizes (a per-CPU value: the 8-byte-rounded value once a possible CPU).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from ctypes import c_size_t, c_uint32, c_uint64
from typing import ClassVar, Self

from pybpf.btf import load_storage_btf
from pybpf.constants import MapFlag, MapType, Update
from pybpf.errors import BpfError
from pybpf.fd import BpfFd, obj_get, pinned_kind
from pybpf.info import MapInfo, map_info
from pybpf.lib import libbpf, possible_cpus
from pybpf.mapping import Mapping

_PER_CPU = (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH)
_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


class _CreateOpts(ctypes.Structure):
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    ]


def _round_up8(size: int) -> int:
    return (size + 7) // 8 * 8


class Map(BpfFd):
    """A map, by descriptor. `info` is read once: nothing in it can change."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info: MapInfo = map_info(fd)
        rows = possible_cpus() if self.info.type in _PER_CPU else 0
        self.value_bytes = _round_up8(self.info.value_size) * rows if rows else self.info.value_size

    @classmethod
    def create(
        cls,
        kind: MapType,
        name: str,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: MapFlag = MapFlag.NONE,
        inner: Map | None = None,
    ) -> Self:
        """A new map; `inner` is the template of a map of maps. Sizes in bytes. BpfError EINVAL, EPERM, ENOMEM."""
        opts = _CreateOpts(sz=ctypes.sizeof(_CreateOpts), map_flags=int(flags), inner_map_fd=inner.fd if inner else 0)
        arguments = (kind, name.encode(), key_size, value_size, max_entries, ctypes.byref(opts))
        if kind != MapType.SK_STORAGE:
            return cls(libbpf().bpf_map_create(*arguments))
        btf = load_storage_btf(value_size)
        with btf.fd as btf_fd:
            opts.btf_fd, opts.btf_key_type_id, opts.btf_value_type_id = btf_fd.fd, btf.key_type_id, btf.value_type_id
            return cls(libbpf().bpf_map_create(*arguments))

    @classmethod
    def from_id(cls, map_id: int) -> Self:
        """BpfError ENOENT if there is no such map, EPERM without CAP_SYS_ADMIN."""
        return cls(libbpf().bpf_map_get_fd_by_id(map_id))

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Self:
        """The map pinned at `path`. BpfError ENOENT, or EINVAL if something else is pinned there."""
        fd = obj_get(path)
        if pinned_kind(fd) != "map":
            os.close(fd)
            raise BpfError(errno.EINVAL, "bpf_obj_get", f"{os.fspath(path)} is not a map")
        return cls(fd)

    def lookup(self, key: bytes) -> bytes | None:
        """The value, None if there is none. For maps of maps: the inner map's id, 4 bytes."""
        value = ctypes.create_string_buffer(self.value_bytes)
        try:
            libbpf().bpf_map_lookup_elem(self.fd, self._key(key), value)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes, flag: Update = Update.ANY) -> None:
        """Set an entry. Maps of maps: the inner map's descriptor, 4 bytes; returns when no program uses the old one."""
        if len(value) != self.value_bytes:
            raise ValueError(f"value of map {self.info.name} has {self.value_bytes} bytes, not {len(value)}")
        libbpf().bpf_map_update_elem(self.fd, self._key(key), value, flag)

    def delete(self, key: bytes) -> bool:
        """Whether there was something to delete."""
        try:
            libbpf().bpf_map_delete_elem(self.fd, self._key(key))
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def lookup_and_delete(self, key: bytes) -> bytes | None:
        """Take an entry out, in one step; None if there is none. Hash maps: since Linux 5.14."""
        value = ctypes.create_string_buffer(self.value_bytes)
        try:
            libbpf().bpf_map_lookup_and_delete_elem(self.fd, self._key(key), value)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def keys(self) -> Iterator[bytes]:
        """Every key, one system call each. A key deleted while walking may start the walk of a hash map again."""
        key: ctypes.Array[ctypes.c_char] | None = None
        while True:
            following = ctypes.create_string_buffer(self.info.key_size)
            try:
                libbpf().bpf_map_get_next_key(self.fd, key, following)
            except BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            yield following.raw
            key = following

    def freeze(self) -> None:
        """No system call can change the map any more (programs can). BpfError EBUSY while it is mapped for writing."""
        libbpf().bpf_map_freeze(self.fd)

    def mmap(self, *, writable: bool = False) -> Mapping:
        """The values as memory; the map must be an array made with MapFlag.MMAPABLE."""
        size = _round_up8(self.info.value_size) * self.info.max_entries
        return Mapping(self.fd, size, writable=writable)

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.info.key_size:
            raise ValueError(f"key of map {self.info.name} has {self.info.key_size} bytes, not {len(key)}")
        return key
