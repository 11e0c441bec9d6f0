# SPDX-License-Identifier: Apache-2.0
"""libbpf.so.1: the one prototype table, and one error check for each kind of return value.

Works with libbpf 1.1 and later. Must not know what the calls mean; the modules beside it do.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from pybpf.errors import BpfError
from pybpf.log import Recorder, print_callback

SONAME = "libbpf.so.1"

SAMPLE_CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)

# How a call reports failure.
_CODE = "code"  # negative errno (also where it is a descriptor)
_POINTER = "pointer"  # NULL, and errno is set
_PLAIN = "plain"  # cannot fail

# (return kind, result type, argument types); the names are libbpf's.
_PROTOTYPES: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
    "bpf_map_create": (_CODE, c_int, (c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p)),
    "bpf_map_lookup_elem": (_CODE, c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (_CODE, c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_delete_elem": (_CODE, c_int, (c_int, c_void_p)),
    "bpf_map_lookup_and_delete_elem": (_CODE, c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_get_next_key": (_CODE, c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_lookup_batch": (_CODE, c_int, (c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "bpf_map_update_batch": (_CODE, c_int, (c_int, c_void_p, c_void_p, c_void_p, c_void_p)),
    "bpf_map_delete_batch": (_CODE, c_int, (c_int, c_void_p, c_void_p, c_void_p)),
    "bpf_map_freeze": (_CODE, c_int, (c_int,)),
    "bpf_map_get_fd_by_id": (_CODE, c_int, (c_uint32,)),
    "bpf_prog_get_fd_by_id": (_CODE, c_int, (c_uint32,)),
    "bpf_link_get_fd_by_id": (_CODE, c_int, (c_uint32,)),
    "bpf_prog_get_next_id": (_CODE, c_int, (c_uint32, c_void_p)),
    "bpf_link_get_next_id": (_CODE, c_int, (c_uint32, c_void_p)),
    "bpf_obj_get_info_by_fd": (_CODE, c_int, (c_int, c_void_p, c_void_p)),
    "bpf_obj_pin": (_CODE, c_int, (c_int, c_char_p)),
    "bpf_obj_get": (_CODE, c_int, (c_char_p,)),
    "bpf_btf_load": (_CODE, c_int, (c_void_p, c_size_t, c_void_p)),
    "bpf_prog_load": (_CODE, c_int, (c_int, c_char_p, c_char_p, c_void_p, c_size_t, c_void_p)),
    "bpf_prog_test_run_opts": (_CODE, c_int, (c_int, c_void_p)),
    "bpf_prog_query": (_CODE, c_int, (c_int, c_int, c_uint32, c_void_p, c_void_p, c_void_p)),
    "bpf_link_create": (_CODE, c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_link_update": (_CODE, c_int, (c_int, c_int, c_void_p)),
    "bpf_link_detach": (_CODE, c_int, (c_int,)),
    "bpf_iter_create": (_CODE, c_int, (c_int,)),
    "bpf_raw_tracepoint_open": (_CODE, c_int, (c_char_p, c_int)),
    "bpf_object__open_file": (_POINTER, c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (_CODE, c_int, (c_void_p,)),
    "bpf_object__close": (_PLAIN, None, (c_void_p,)),
    "bpf_object__next_program": (_PLAIN, c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_map": (_PLAIN, c_void_p, (c_void_p, c_void_p)),
    "bpf_object__btf": (_PLAIN, c_void_p, (c_void_p,)),
    "bpf_program__name": (_PLAIN, c_char_p, (c_void_p,)),
    "bpf_program__section_name": (_PLAIN, c_char_p, (c_void_p,)),
    "bpf_program__type": (_PLAIN, c_int, (c_void_p,)),
    "bpf_program__set_type": (_CODE, c_int, (c_void_p, c_int)),
    "bpf_program__expected_attach_type": (_PLAIN, c_int, (c_void_p,)),
    "bpf_program__set_expected_attach_type": (_CODE, c_int, (c_void_p, c_int)),
    "bpf_program__set_autoload": (_CODE, c_int, (c_void_p, c_bool)),
    "bpf_program__fd": (_CODE, c_int, (c_void_p,)),
    "bpf_map__name": (_PLAIN, c_char_p, (c_void_p,)),
    "bpf_map__type": (_PLAIN, c_int, (c_void_p,)),
    "bpf_map__key_size": (_PLAIN, c_uint32, (c_void_p,)),
    "bpf_map__value_size": (_PLAIN, c_uint32, (c_void_p,)),
    "bpf_map__max_entries": (_PLAIN, c_uint32, (c_void_p,)),
    "bpf_map__map_flags": (_PLAIN, c_uint32, (c_void_p,)),
    "bpf_map__fd": (_CODE, c_int, (c_void_p,)),
    "bpf_map__reuse_fd": (_CODE, c_int, (c_void_p, c_int)),
    "bpf_map__inner_map": (_PLAIN, c_void_p, (c_void_p,)),
    "bpf_map__initial_value": (_PLAIN, c_void_p, (c_void_p, c_void_p)),
    "btf__load_vmlinux_btf": (_POINTER, c_void_p, ()),
    "btf__free": (_PLAIN, None, (c_void_p,)),
    "btf__find_by_name_kind": (_CODE, c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__type_by_id": (_POINTER, c_void_p, (c_void_p, c_uint32)),
    "btf__name_by_offset": (_PLAIN, c_char_p, (c_void_p, c_uint32)),
    "ring_buffer__new": (_POINTER, c_void_p, (c_int, SAMPLE_CALLBACK, c_void_p, c_void_p)),
    "ring_buffer__epoll_fd": (_CODE, c_int, (c_void_p,)),
    "ring_buffer__consume": (_CODE, c_int, (c_void_p,)),
    "ring_buffer__free": (_PLAIN, None, (c_void_p,)),
    "libbpf_num_possible_cpus": (_CODE, c_int, ()),
    "libbpf_version_string": (_PLAIN, c_char_p, ()),
}


class Library:
    """The loaded library: `lib.bpf_map_create(...)` and so on. A failed call raises BpfError."""

    def __init__(self) -> None:
        self._recorder = Recorder()
        self._callback = print_callback(self._recorder)  # must live as long as the library
        self._lib = ctypes.CDLL(SONAME, use_errno=True)
        self._lib.libbpf_set_print(self._callback)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        kind, result, arguments = _PROTOTYPES[name]
        function = self._lib[name]
        function.restype = result
        function.argtypes = arguments
        call = {_CODE: self._code, _POINTER: self._pointer}.get(kind, _plain)(name, function)
        setattr(self, name, call)
        return call

    def _code(self, name: str, function: Any) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            result: int = function(*arguments)
            if result < 0:
                raise BpfError(-result, name, self._recorder.take())
            if self._recorder.parts:
                self._recorder.take()
            return result

        return call

    def _pointer(self, name: str, function: Any) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            ctypes.set_errno(0)
            result: int | None = function(*arguments)
            log = self._recorder.take()
            if not result:
                raise BpfError(ctypes.get_errno(), name, log)
            return result

        return call


def _plain(_name: str, function: Any) -> Callable[..., Any]:
    call: Callable[..., Any] = function
    return call


@functools.cache
def libbpf() -> Library:
    """The library, loaded at first use. OSError if it is not installed."""
    return Library()


def version() -> str:
    """Of the libbpf that is loaded, e.g. "v1.1"."""
    return str(libbpf().libbpf_version_string().decode())


def possible_cpus() -> int:
    """Number of CPUs this kernel could ever have: the rows of a per-CPU value."""
    return int(libbpf().libbpf_num_possible_cpus())
