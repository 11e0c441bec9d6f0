# SPDX-License-Identifier: Apache-2.0
"""The socket calls that cases name, made for real. Each returns 0 or the errno of the first step that failed.

Runs in a process that has already entered its cgroup and namespaces. Must not know policies or expectations.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from support import libc
from support.uring import Ring

MPTCP = 262
UDPLITE = 136
_STREAM, _DGRAM, _RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
KINDS: dict[str, tuple[int, int, int]] = {
    "tcp4": (socket.AF_INET, _STREAM, 0),
    "tcp6": (socket.AF_INET6, _STREAM, 0),
    "udp4": (socket.AF_INET, _DGRAM, 0),
    "udp6": (socket.AF_INET6, _DGRAM, 0),
    "mptcp4": (socket.AF_INET, _STREAM, MPTCP),
    "mptcp6": (socket.AF_INET6, _STREAM, MPTCP),
    "udplite4": (socket.AF_INET, _DGRAM, UDPLITE),
    "udplite6": (socket.AF_INET6, _DGRAM, UDPLITE),
    "ping4": (socket.AF_INET, _DGRAM, socket.IPPROTO_ICMP),
    "ping6": (socket.AF_INET6, _DGRAM, socket.IPPROTO_ICMPV6),
    "raw4": (socket.AF_INET, _RAW, socket.IPPROTO_UDP),
    "raw6": (socket.AF_INET6, _RAW, socket.IPPROTO_UDP),
    "unix-stream": (socket.AF_UNIX, _STREAM, 0),
    "unix-dgram": (socket.AF_UNIX, _DGRAM, 0),
}
_ECHO_REQUEST: dict[int, bytes] = {socket.AF_INET: b"\x08\0\0\0\0\0\0\0", socket.AF_INET6: b"\x80\0\0\0\0\0\0\0"}
_TCP_FASTOPEN_CONNECT = 30
_IP_BIND_ADDRESS_NO_PORT = 24
_IP_FREEBIND = 15
_SO_REUSEPORT = 15
_IP_PKTINFO = 8
_IPV6_TCLASS = socket.IPV6_TCLASS


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `to` are the socket addresses in order; `first`: where the socket is connected before, if anywhere;
    `reaches`: where the call is to end up, if anybody wants to know."""

    call: str
    via: str
    to: tuple[bytes, ...] = ()
    first: bytes | None = None
    source: bytes | None = None
    options: frozenset[str] = frozenset()
    device: str | None = None
    pktinfo: str | None = None
    reaches: bytes | None = None


def open_socket(via: str, call: str = "") -> int:
    """A new file descriptor, or minus errno."""
    family, kind, protocol = KINDS[via]
    if call == "io-uring-socket":
        with Ring() as ring:
            return ring.socket(family, kind, protocol)
    try:
        return socket.socket(family, kind, protocol).detach()
    except OSError as error:
        return -(error.errno or errno.EIO)


def perform(request: Request, fd: int | None = None, look: Callable[[int], None] | None = None) -> int:
    """Make the call, on `fd` or on a new socket, and have a look at the socket if it succeeded."""
    if fd is None:
        fd = open_socket(request.via, request.call)
    if fd < 0:
        return -fd
    try:
        _prepare(fd, request)
        if request.source is not None and (failed := libc.bind(fd, request.source)) < 0:
            return -failed
        if request.first is not None and (failed := libc.connect(fd, request.first)) < 0:
            return -failed
        failed = max(0, -CALLS[request.call](fd, request))
        if not failed and look is not None:
            look(fd)
        return failed
    finally:
        os.close(fd)


def _prepare(fd: int, request: Request) -> None:
    with socket.socket(fileno=os.dup(fd)) as sock:
        if "v6only" in request.options:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        elif sock.family == socket.AF_INET6 and sock.type != _RAW:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if "no-port" in request.options:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        if "freebind" in request.options:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if "reuse-port" in request.options:
            sock.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)
        if request.device is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, request.device.encode() + b"\0")


def _payload(request: Request) -> bytes:
    family = KINDS[request.via][0]
    return _ECHO_REQUEST[family] if request.via.startswith("ping") else b"datagram"


def _control(request: Request) -> bytes:
    """A type of service, and the packet information if asked for."""
    if request.via.endswith("6"):
        return libc.control_message(socket.IPPROTO_IPV6, _IPV6_TCLASS, struct.pack("=i", 8))
    control = libc.control_message(socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", 8))
    if request.pktinfo is not None:
        info = struct.pack("=i", 0) + socket.inet_aton(request.pktinfo) + socket.inet_aton("0.0.0.0")
        control += libc.control_message(socket.IPPROTO_IP, _IP_PKTINFO, info)
    return control


def _nothing(_fd: int, _request: Request) -> int:
    return 0


def _connect(fd: int, request: Request) -> int:
    return libc.connect(fd, request.to[0])


def _bind(fd: int, request: Request) -> int:
    for address in request.to:
        if (result := libc.bind(fd, address)) < 0:
            return result
    return 0


def _bind_retry(fd: int, request: Request) -> int:
    """The first address must fail; the result is the second's, on the same socket."""
    if libc.bind(fd, request.to[0]) >= 0:
        return -errno.EISCONN
    return libc.bind(fd, request.to[1])


def _bind_pair(fd: int, request: Request) -> int:
    """Two sockets on one address (SO_REUSEPORT): the result is the second one's."""
    if (result := libc.bind(fd, request.to[0])) < 0:
        return result
    return -perform(Request("bind", request.via, request.to, options=request.options))


def _listen(fd: int, _request: Request) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.listen(1)
    return 0


def _bind_listen(fd: int, request: Request) -> int:
    return _bind(fd, request) or _listen(fd, request)


def _sendto(fd: int, request: Request) -> int:
    for address in request.to:
        if (result := libc.sendto(fd, _payload(request), 0, address)) < 0:
            return result
    return 0


def _sendto_twice(fd: int, request: Request) -> int:
    """The second attempt on the same socket: a refused first one leaves it bound to a port."""
    _sendto(fd, request)
    return _sendto(fd, request)


def _sendmsg(fd: int, request: Request) -> int:
    return min(0, libc.sendmsg(fd, libc.message(_payload(request), request.to[0])))


def _sendmsg_cmsg(fd: int, request: Request) -> int:
    return min(0, libc.sendmsg(fd, libc.message(_payload(request), request.to[0], _control(request))))


def _sendmmsg(fd: int, request: Request) -> int:
    """Send to each address in one call; the errno is the one that stopped it half-way."""
    left = [libc.message(_payload(request), to) for to in request.to]
    while left:
        sent = libc.sendmmsg(fd, left)
        if sent < 0:
            return sent
        left = left[sent:]
    return 0


def _send_connected(fd: int, request: Request) -> int:
    return _connect(fd, request) or min(0, libc.sendmsg(fd, libc.message(_payload(request))))


def _send_connected_cmsg(fd: int, request: Request) -> int:
    return _connect(fd, request) or min(0, libc.sendmsg(fd, libc.message(_payload(request), b"", _control(request))))


def _send_more(fd: int, request: Request) -> int:
    """MSG_MORE to the first address, then a datagram "to" the second: the kernel sends all to the first."""
    if (result := libc.sendto(fd, b"more", socket.MSG_MORE, request.to[0])) < 0:
        return result
    return min(0, libc.sendto(fd, b"rest", 0, request.to[1]))


def _disconnect(fd: int, request: Request) -> int:
    """connect(AF_UNSPEC), then a datagram to the address."""
    return libc.connect(fd, struct.pack("=H", socket.AF_UNSPEC) + b"\0" * 14) or _sendto(fd, request)


def _fast_open(fd: int, request: Request) -> int:
    return min(0, libc.sendto(fd, b"early", socket.MSG_FASTOPEN, request.to[0]))


def _fast_open_connect(fd: int, request: Request) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
    return _connect(fd, request) or min(0, libc.sendmsg(fd, libc.message(b"early")))


def _uring_connect(fd: int, request: Request) -> int:
    with Ring(polled=request.call.startswith("sqpoll")) as ring:
        return ring.connect(fd, request.to[0])


def _uring_bind(fd: int, request: Request) -> int:
    with Ring() as ring:
        return ring.bind(fd, request.to[0])


def _uring_sendmsg(fd: int, request: Request) -> int:
    with Ring(polled=request.call.startswith("sqpoll")) as ring:
        return min(0, ring.sendmsg(fd, libc.message(b"datagram", request.to[0])))


def _uring_send_to(fd: int, request: Request) -> int:
    with Ring() as ring:
        return min(0, ring.send_to(fd, b"datagram", request.to[0]))


CALLS: dict[str, Callable[[int, Request], int]] = {
    "socket": _nothing,
    "io-uring-socket": _nothing,
    "connect": _connect,
    "bind": _bind,
    "bind-retry": _bind_retry,
    "bind-pair": _bind_pair,
    "bind-listen": _bind_listen,
    "listen": _listen,
    "sendto": _sendto,
    "sendto-twice": _sendto_twice,
    "sendmsg": _sendmsg,
    "sendmsg-cmsg": _sendmsg_cmsg,
    "sendmmsg": _sendmmsg,
    "send-connected": _send_connected,
    "send-connected-cmsg": _send_connected_cmsg,
    "send-more": _send_more,
    "disconnect": _disconnect,
    "fast-open": _fast_open,
    "fast-open-connect": _fast_open_connect,
    "io-uring-connect": _uring_connect,
    "sqpoll-connect": _uring_connect,
    "io-uring-bind": _uring_bind,
    "io-uring-sendmsg": _uring_sendmsg,
    "sqpoll-sendmsg": _uring_sendmsg,
    "io-uring-send-to": _uring_send_to,
}
