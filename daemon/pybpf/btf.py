# SPDX-License-Identifier: Apache-2.0
"""The little BTF that is needed: for storage maps, types of the running kernel, variables of a data section.

Must not know of maps or programs. Layout: Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_uint32
from dataclasses import dataclass
from typing import ClassVar

from pybpf.errors import BpfError
from pybpf.fd import BpfFd
from pybpf.lib import libbpf

KIND_INT = 1
KIND_ARRAY = 3
KIND_STRUCT = 4
KIND_FUNC = 12
KIND_DATASEC = 15

_MAGIC = 0xEB9F
_VERSION = 1
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")


class _Type(ctypes.Structure):
    _fields_: ClassVar = [("name_off", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32)]


class _SectionVariable(ctypes.Structure):
    _fields_: ClassVar = [("type", c_uint32), ("offset", c_uint32), ("size", c_uint32)]


@dataclass(frozen=True, slots=True)
class StorageBtf:
    """Type ids for a map whose BTF the kernel insists on: a 32-bit key and a value of bytes."""

    fd: BpfFd
    key_type_id: int
    value_type_id: int


def _int_type(name_offset: int, size: int) -> bytes:
    return _TYPE.pack(name_offset, KIND_INT << 24, size) + struct.pack("=I", size * 8)


def load_storage_btf(value_size: int) -> StorageBtf:
    """Load BTF for a storage map (BPF_MAP_TYPE_SK_STORAGE and its kin): the kernel wants to know the value's layout."""
    strings = b"\0int\0byte\0"
    types = _int_type(1, 4) + _int_type(5, 1)
    types += _TYPE.pack(0, KIND_ARRAY << 24, 0) + struct.pack("=III", 2, 1, value_size)
    header = _HEADER.pack(_MAGIC, _VERSION, 0, _HEADER.size, 0, len(types), len(types), len(strings))
    blob = header + types + strings
    return StorageBtf(BpfFd(libbpf().bpf_btf_load(blob, len(blob), None)), 1, 3)


class KernelTypes:
    """BTF of the running kernel (or of an object); valid while its owner lives."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def find(self, name: str, kind: int) -> int | None:
        """Type id of a name, None if there is none."""
        try:
            return int(libbpf().btf__find_by_name_kind(self._handle, name.encode(), kind))
        except BpfError:
            return None

    def section_variables(self, section: str) -> dict[str, tuple[int, int]]:
        """Variables of a data section, e.g. ".rodata": name -> (offset, size) in bytes."""
        section_id = self.find(section, KIND_DATASEC)
        if section_id is None:
            return {}
        address = libbpf().btf__type_by_id(self._handle, section_id)
        count = _Type.from_address(address).info & 0xFFFF
        variables = (_SectionVariable * count).from_address(address + ctypes.sizeof(_Type))
        return {self._type_name(v.type): (v.offset, v.size) for v in variables}

    def _type_name(self, type_id: int) -> str:
        name_offset = _Type.from_address(libbpf().btf__type_by_id(self._handle, type_id)).name_off
        name: bytes = libbpf().btf__name_by_offset(self._handle, name_offset)
        return name.decode()


@contextmanager
def kernel_types() -> Iterator[KernelTypes]:
    """BTF of the running kernel; BpfError if it has none."""
    handle = libbpf().btf__load_vmlinux_btf()
    try:
        yield KernelTypes(handle)
    finally:
        libbpf().btf__free(handle)
