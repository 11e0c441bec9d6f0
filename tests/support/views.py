# SPDX-License-Identifier: Apache-2.0
"""What a program sees of its socket after a call: its addresses, its options, and who answers.

Runs in the process that made the call. Must not know what is expected.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable

from support.calls import Request
from support.servers import text_of

TIMEOUT_S = 20.0
_SO_PEERNAME = 28
_SO_BINDTOIFINDEX = 62
_SOCKADDR_BYTES = {socket.AF_INET: 16, socket.AF_INET6: 28}
_UNIX_HEADER = 2


def look(fd: int, request: Request) -> dict[str, str]:
    """Everything that can be seen, by the names of `shows` in a case, and `at`: where the call arrived."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.settimeout(TIMEOUT_S)
        seen = {name: view(sock) for name, view in _VIEWS.items()}
        if request.reaches is not None:
            seen |= _visit(sock, request.reaches) if "bind" in request.call else _talk(sock, request)
        return seen


def address_of(raw: bytes) -> str:
    """The text of a struct sockaddr."""
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_UNIX:
        name = raw[_UNIX_HEADER:]
        return text_of(name) if name.startswith(b"\0") else os.fsdecode(name.partition(b"\0")[0])
    (port,) = struct.unpack_from("!H", raw, 2)
    host = raw[8:24] if family == socket.AF_INET6 else raw[4:8]
    return text_of((socket.inet_ntop(family, host), port))


def _plain(raw: bytes) -> tuple[str, int]:
    host, _, port = address_of(raw).rpartition(":")
    return host.strip("[]"), int(port)


def _quietly(view: Callable[[socket.socket], str]) -> Callable[[socket.socket], str]:
    """The view, "" where the socket has none."""

    def viewed(sock: socket.socket) -> str:
        try:
            return view(sock)
        except OSError:
            return ""

    return viewed


def _option(level: int, name: int) -> Callable[[socket.socket], str]:
    return _quietly(lambda sock: str(sock.getsockopt(level, name)))


def _device(sock: socket.socket) -> str:
    index = sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX)
    return socket.if_indextoname(index) if index else ""


def _peername_option(sock: socket.socket) -> str:
    """SO_PEERNAME, for which the kernel asks the socket by itself. It refuses more room than the address takes."""
    room = _SOCKADDR_BYTES.get(sock.family) or _UNIX_HEADER + len(sock.getpeername())
    return address_of(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, room))


_QUIET = {"connect", "io-uring-connect", "sqpoll-connect"}  # send nothing by themselves
_VIEWS: dict[str, Callable[[socket.socket], str]] = {
    "peer": _quietly(lambda sock: text_of(sock.getpeername())),
    "so_peername": _quietly(_peername_option),
    "local": _quietly(lambda sock: text_of(sock.getsockname())),
    "mark": _option(socket.SOL_SOCKET, socket.SO_MARK),
    "priority": _option(socket.SOL_SOCKET, socket.SO_PRIORITY),
    "device": _quietly(_device),
}


def _talk(sock: socket.socket, request: Request) -> dict[str, str]:
    """Who answers (support/servers.py), and who the answer seems to be from."""
    if sock.type == socket.SOCK_DGRAM and request.call in _QUIET:
        sock.send(b"datagram")
    data, sender = sock.recvfrom(2048)
    greeting: dict[str, str] = json.loads(data)
    return {**greeting, "reply": text_of(sender)}


def _visit(sock: socket.socket, there: bytes) -> dict[str, str]:
    """Call on a socket that was bound, at the address where it is to be; the caller is closed again."""
    place = _plain(there)
    with socket.socket(sock.family if ":" in place[0] else socket.AF_INET, sock.type) as visitor:
        visitor.settimeout(TIMEOUT_S)
        if sock.type == socket.SOCK_DGRAM:
            visitor.sendto(b"datagram", place)
            sock.recv(16)
            return {"at": text_of(place)}
        sock.listen(1)
        visitor.connect(place)
        with sock.accept()[0] as accepted:
            visitor.close()  # first, so that nothing is left of the connection at the address that was bound
            accepted.recv(1)
            return {"at": text_of(place), "accepted": text_of(accepted.getsockname())}
