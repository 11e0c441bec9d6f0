# SPDX-License-Identifier: Apache-2.0
"""A BPF object file: opened, adjusted, loaded. Must not know of pins, links or what the programs do."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from pybpf.btf import KernelTypes
from pybpf.lib import libbpf
from pybpf.map import Map
from pybpf.program import Program


class ObjectMap:
    """A map as the object file defines it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.name: str = libbpf().bpf_map__name(handle).decode()

    @property
    def type(self) -> int:
        return int(libbpf().bpf_map__type(self._handle))

    @property
    def key_size(self) -> int:
        return int(libbpf().bpf_map__key_size(self._handle))

    @property
    def value_size(self) -> int:
        return int(libbpf().bpf_map__value_size(self._handle))

    @property
    def max_entries(self) -> int:
        return int(libbpf().bpf_map__max_entries(self._handle))

    @property
    def flags(self) -> int:
        return int(libbpf().bpf_map__map_flags(self._handle))

    @property
    def inner(self) -> ObjectMap | None:
        """The template of a map of maps."""
        handle = libbpf().bpf_map__inner_map(self._handle)
        return ObjectMap(handle) if handle else None

    def reuse(self, existing: Map) -> None:
        """Use `existing` instead of making this map. The caller has compared the two."""
        libbpf().bpf_map__reuse_fd(self._handle, existing.fd)

    def initial_value(self) -> memoryview:
        """Contents of a data section, writable until the object is loaded."""
        size = ctypes.c_size_t()
        address = libbpf().bpf_map__initial_value(self._handle, ctypes.byref(size))
        if not address:
            raise ValueError(f"map {self.name} has no initial value")
        return memoryview((ctypes.c_char * size.value).from_address(address)).cast("B")

    def open(self) -> Map:
        """The loaded map, with a descriptor of its own."""
        return Map(os.dup(libbpf().bpf_map__fd(self._handle)))


class ObjectProgram:
    """A program as the object file defines it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.name: str = libbpf().bpf_program__name(handle).decode()
        self.section: str = libbpf().bpf_program__section_name(handle).decode()

    @property
    def type(self) -> int:
        return int(libbpf().bpf_program__type(self._handle))

    @property
    def attach_type(self) -> int:
        return int(libbpf().bpf_program__expected_attach_type(self._handle))

    def set_type(self, kind: int, attach_type: int) -> None:
        """For sections that this libbpf does not know."""
        libbpf().bpf_program__set_type(self._handle, kind)
        libbpf().bpf_program__set_expected_attach_type(self._handle, attach_type)

    def set_autoload(self, wanted: bool) -> None:
        libbpf().bpf_program__set_autoload(self._handle, wanted)

    def open(self) -> Program:
        """The loaded program, with a descriptor of its own that outlives the object."""
        return Program(os.dup(libbpf().bpf_program__fd(self._handle)), self.attach_type)


class Object:
    """An object file. Adjust maps, programs, read-only data, then `load`; opened maps and programs outlive it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._handle: int | None = libbpf().bpf_object__open_file(os.fsencode(path), None)
        lib = libbpf()
        self.maps = {m.name: m for m in map(ObjectMap, self._each(lib.bpf_object__next_map))}
        self.programs = {p.name: p for p in map(ObjectProgram, self._each(lib.bpf_object__next_program))}

    def _each(self, following: Callable[[int | None, int | None], int | None]) -> list[int]:
        handles = []
        handle = following(self._handle, None)
        while handle:
            handles.append(handle)
            handle = following(self._handle, handle)
        return handles

    def set_rodata(self, values: Mapping[str, int]) -> frozenset[str]:
        """Set `const volatile` integers before the load. Returns the names that this object has; others are ignored."""
        section = next((m for name, m in self.maps.items() if name.endswith(".rodata")), None)
        if section is None:
            return frozenset()
        variables = KernelTypes(libbpf().bpf_object__btf(self._handle)).section_variables(".rodata")
        memory = section.initial_value()
        known = frozenset(values) & frozenset(variables)
        for name in known:
            offset, size = variables[name]
            memory[offset : offset + size] = int(values[name]).to_bytes(size, "little" if _LITTLE else "big")
        return known

    def load(self) -> None:
        """Create what is not reused and load every program left to load. BpfError carries the verifier's log."""
        libbpf().bpf_object__load(self._handle)

    def close(self) -> None:
        if self._handle is not None:
            libbpf().bpf_object__close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_LITTLE = memoryview(b"\1\0").cast("H")[0] == 1
