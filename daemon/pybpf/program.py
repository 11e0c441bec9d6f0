# SPDX-License-Identifier: Apache-2.0
"""A loaded BPF program as a descriptor: by id, from raw instructions, test runs. Must not know of object files."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from typing import ClassVar, Self

from pybpf.constants import ProgType
from pybpf.errors import BpfError
from pybpf.fd import BpfFd
from pybpf.info import ProgInfo, prog_info
from pybpf.lib import libbpf

_LOG_BYTES = 1 << 16
_INSTRUCTION = struct.Struct("=BBhi")


class _LoadOpts(ctypes.Structure):
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_char_p),
    ]


class _TestRunOpts(ctypes.Structure):
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


@dataclass(frozen=True, slots=True)
class TestRun:
    """What a test run gave: the program's return value, the data it left, nanoseconds a repetition."""

    __test__ = False  # not a test class, whatever its name says

    retval: int
    data: bytes
    duration_ns: int


class Program(BpfFd):
    """A loaded program. `attach_type`: what it was loaded for; None where not known (the kernel does not tell)."""

    def __init__(self, fd: int, attach_type: int | None = None) -> None:
        super().__init__(fd)
        self.info: ProgInfo = prog_info(fd)
        self.attach_type = attach_type

    @classmethod
    def from_id(cls, prog_id: int) -> Self:
        """BpfError ENOENT if there is no such program, EPERM without CAP_SYS_ADMIN."""
        return cls(libbpf().bpf_prog_get_fd_by_id(prog_id))

    @classmethod
    def from_instructions(
        cls,
        kind: ProgType,
        instructions: Sequence[bytes],
        *,
        name: str = "probe",
        attach_type: int = 0,
        attach_btf_id: int = 0,
    ) -> Self:
        """Load instructions made by `instruction`. BpfError carries the verifier's log.

        `attach_btf_id`: of a tracing program, the function of the kernel that it is for.
        """
        code = b"".join(instructions)
        log = ctypes.create_string_buffer(_LOG_BYTES)
        opts = _LoadOpts(sz=ctypes.sizeof(_LoadOpts), expected_attach_type=attach_type, attach_btf_id=attach_btf_id)
        opts.log_level, opts.log_size = 1, _LOG_BYTES
        opts.log_buf = ctypes.cast(log, c_char_p)
        try:
            fd = libbpf().bpf_prog_load(
                kind, name.encode(), b"GPL", code, len(code) // _INSTRUCTION.size, ctypes.byref(opts)
            )
        except BpfError as error:
            raise BpfError(error.errno or 0, error.call, log.value.decode("utf-8", "replace")) from None
        return cls(fd, attach_type)

    def test_run(self, data: bytes = b"", *, context: bytes = b"", repeat: int = 0, room: int | None = None) -> TestRun:
        """BPF_PROG_TEST_RUN. `data`: the packet, `context`: the context; `room`: bytes for the data coming back."""
        out = ctypes.create_string_buffer(max(len(data) if room is None else room, 1))
        opts = _TestRunOpts(sz=ctypes.sizeof(_TestRunOpts), repeat=repeat)
        if data:
            opts.data_in = ctypes.cast(ctypes.c_char_p(data), c_void_p)
            opts.data_size_in = len(data)
            opts.data_out = ctypes.addressof(out)
            opts.data_size_out = len(out)
        if context:
            opts.ctx_in = ctypes.cast(ctypes.c_char_p(context), c_void_p)
            opts.ctx_size_in = len(context)
        libbpf().bpf_prog_test_run_opts(self.fd, ctypes.byref(opts))
        return TestRun(opts.retval, out.raw[: opts.data_size_out], opts.duration)


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One instruction (struct bpf_insn) of this machine's byte order."""
    registers = src << 4 | dst if _LITTLE else dst << 4 | src
    return _INSTRUCTION.pack(code, registers, offset, immediate)


_LITTLE = struct.pack("=H", 1) == b"\1\0"
