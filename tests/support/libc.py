# SPDX-License-Identifier: Apache-2.0
"""System calls that Python's socket module hides or tidies up: raw socket addresses, message headers, namespaces.

Every function returns the result of the call, or minus errno, as the kernel itself does. Must not know policies.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SYS_PIDFD_OPEN = 434
SYS_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    """struct msghdr; `keep` holds what its pointers point to."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )
    keep: tuple[object, ...]


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", Msghdr), ("len", ctypes.c_uint))


def _result(value: int) -> int:
    return value if value >= 0 else -ctypes.get_errno()


def connect(fd: int, address: bytes) -> int:
    return _result(_libc.connect(fd, address, len(address)))


def bind(fd: int, address: bytes) -> int:
    return _result(_libc.bind(fd, address, len(address)))


def sendto(fd: int, data: bytes, flags: int, address: bytes) -> int:
    return _result(_libc.sendto(fd, data, ctypes.c_size_t(len(data)), flags, address, len(address)))


def message(data: bytes, address: bytes = b"", control: bytes = b"") -> Msghdr:
    """A message header with one buffer, a destination unless empty, and control messages unless empty."""
    buffer = ctypes.create_string_buffer(data, len(data))
    iov = _Iovec(ctypes.addressof(buffer), len(data))
    name = ctypes.create_string_buffer(address, len(address))
    ctrl = ctypes.create_string_buffer(control, len(control))
    header = Msghdr(
        ctypes.addressof(name) if address else None,
        len(address),
        ctypes.pointer(iov),
        1,
        ctypes.addressof(ctrl) if control else None,
        len(control),
        0,
    )
    header.keep = (buffer, iov, name, ctrl)
    return header


def sendmsg(fd: int, header: Msghdr) -> int:
    return _result(_libc.sendmsg(fd, ctypes.byref(header), 0))


def sendmmsg(fd: int, headers: list[Msghdr]) -> int:
    """Number of messages sent, or minus the errno of the first one."""
    vector = (_Mmsghdr * len(headers))(*(_Mmsghdr(h, 0) for h in headers))
    return _result(_libc.sendmmsg(fd, vector, len(headers), 0))


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`. Raises OSError."""
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def enter_netns(path: os.PathLike[str]) -> None:
    """Move the calling thread into a network namespace. Raises what the kernel says."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")
    finally:
        os.close(fd)


def syscall(number: int, *args: int) -> int:
    return _result(_libc.syscall(*(ctypes.c_long(a) for a in (number, *args))))


def take_fd(pid: int, fd: int) -> int:
    """A duplicate of another process's file descriptor (pidfd_getfd). Raises OSError."""
    pidfd = syscall(SYS_PIDFD_OPEN, pid, 0)
    if pidfd < 0:
        raise OSError(-pidfd, "pidfd_open")
    try:
        taken = syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if taken < 0:
        raise OSError(-taken, "pidfd_getfd")
    return taken


def control_message(level: int, kind: int, data: bytes) -> bytes:
    """One struct cmsghdr with its data, padded as CMSG_SPACE does."""
    head = struct.pack("@Qii", 16 + len(data), level, kind)
    return head + data + b"\0" * (-len(data) % 8)


def sockaddr(host: str, port: int, form: str = "auto") -> bytes:
    """The bytes of a socket address.

    `form`: "auto" (by the text), "unspec" (an IPv4 one whose sa_family is AF_UNSPEC), "short" (IPv6 without the scope
    id, 24 bytes), "padded" (an IPv4 one in the 28 bytes of an IPv6 one).
    """
    if ":" in host:
        address, _, scope = host.partition("%")
        index = socket.if_nametoindex(scope) if scope else 0
        packed = struct.pack("!I", 0) + socket.inet_pton(socket.AF_INET6, address)
        full = struct.pack("=H", socket.AF_INET6) + struct.pack("!H", port) + packed + struct.pack("=I", index)
        return full[:24] if form == "short" else full
    family = socket.AF_UNSPEC if form == "unspec" else socket.AF_INET
    plain = struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(host) + b"\0" * 8
    return plain + b"\0" * 12 if form == "padded" else plain
