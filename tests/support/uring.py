# SPDX-License-Identifier: Apache-2.0
"""A tiny io_uring: one submission at a time, by hand, for socket calls that never pass through their system calls.

Returns what the completion says (result or minus errno). Must not know policies.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from types import TracebackType

from support import libc

OP_SENDMSG = 9
OP_CONNECT = 16
OP_SEND = 26
OP_SOCKET = 45
OP_BIND = 56

_SYS_SETUP = 425
_SYS_ENTER = 426
_SETUP_SQPOLL = 1 << 1
_ENTER_GETEVENTS = 1 << 0
_ENTER_SQ_WAKEUP = 1 << 1
_OFF_CQ_RING = 0x8000000
_OFF_SQES = 0x10000000
_PARAMS_SIZE = 120


class Ring:
    """One ring. `polled`: a kernel thread submits (SQPOLL)."""

    def __init__(self, *, polled: bool = False) -> None:
        params = ctypes.create_string_buffer(_PARAMS_SIZE)
        struct.pack_into("=5I", params, 0, 0, 0, _SETUP_SQPOLL if polled else 0, 0, 50 if polled else 0)
        self._polled = polled
        self._fd = libc.syscall(_SYS_SETUP, 4, ctypes.addressof(params))
        if self._fd < 0:
            raise OSError(-self._fd, "io_uring_setup")
        entries, cq_entries = struct.unpack_from("=2I", params, 0)
        self._sq_at = struct.unpack_from("=7I", params, 40)  # head tail mask entries flags dropped array
        self._cq_at = struct.unpack_from("=7I", params, 80)  # head tail mask entries overflow cqes flags
        self._sq = mmap.mmap(self._fd, self._sq_at[6] + entries * 4)
        self._cq = mmap.mmap(self._fd, self._cq_at[5] + cq_entries * 16, offset=_OFF_CQ_RING)
        self._sqes = mmap.mmap(self._fd, entries * 64, offset=_OFF_SQES)

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for area in (self._sq, self._cq, self._sqes):
            area.close()
        os.close(self._fd)

    def submit(self, op: int, fd: int, *, off: int = 0, addr: int = 0, length: int = 0, addr_len: int = 0) -> int:
        """Submit one entry and wait for its completion."""
        struct.pack_into("=BBHiQQIIQHHIQQ", self._sqes, 0, op, 0, 0, fd, off, addr, length, 0, 1, 0, 0, addr_len, 0, 0)
        tail = struct.unpack_from("=I", self._sq, self._sq_at[1])[0]
        mask = struct.unpack_from("=I", self._sq, self._sq_at[2])[0]
        struct.pack_into("=I", self._sq, self._sq_at[6] + (tail & mask) * 4, 0)
        struct.pack_into("=I", self._sq, self._sq_at[1], tail + 1)
        flags = _ENTER_GETEVENTS | (_ENTER_SQ_WAKEUP if self._polled else 0)
        entered = libc.syscall(_SYS_ENTER, self._fd, 1, 1, flags, 0, 0)
        if entered < 0:
            raise OSError(-entered, "io_uring_enter")
        return self._complete()

    def _complete(self) -> int:
        head = struct.unpack_from("=I", self._cq, self._cq_at[0])[0]
        mask = struct.unpack_from("=I", self._cq, self._cq_at[2])[0]
        result: int = struct.unpack_from("=Qi", self._cq, self._cq_at[5] + (head & mask) * 16)[1]
        struct.pack_into("=I", self._cq, self._cq_at[0], head + 1)
        return result

    def connect(self, fd: int, address: bytes) -> int:
        buffer = ctypes.create_string_buffer(address, len(address))
        return self.submit(OP_CONNECT, fd, off=len(address), addr=ctypes.addressof(buffer))

    def bind(self, fd: int, address: bytes) -> int:
        buffer = ctypes.create_string_buffer(address, len(address))
        return self.submit(OP_BIND, fd, off=len(address), addr=ctypes.addressof(buffer))

    def sendmsg(self, fd: int, header: libc.Msghdr) -> int:
        return self.submit(OP_SENDMSG, fd, addr=ctypes.addressof(header), length=1)

    def send_to(self, fd: int, data: bytes, address: bytes) -> int:
        buffer = ctypes.create_string_buffer(data, len(data))
        to = ctypes.create_string_buffer(address, len(address))
        at = ctypes.addressof(to)
        return self.submit(OP_SEND, fd, off=at, addr=ctypes.addressof(buffer), length=len(data), addr_len=len(address))

    def socket(self, family: int, kind: int, protocol: int) -> int:
        return self.submit(OP_SOCKET, family, off=kind, length=protocol)
