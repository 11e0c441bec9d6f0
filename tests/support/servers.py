# SPDX-License-Identifier: Apache-2.0
"""Somebody to be reached: servers that tell each client where it arrived, and what they saw of it.

Every answer is one JSON object, see `Greeting`. Runs in a process of its own. Must not know of policies or calls.
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import socket
import struct
import sys
from typing import Any, TypedDict

MPTCP = 262
SO_ORIGINAL_DST = 80  # IP6T_SO_ORIGINAL_DST too
_PATIENCE_S = 20.0
_IN, _IN6 = struct.Struct("=H2s4s8x"), struct.Struct("=H2s4x16s4x")
_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "mptcp": (socket.SOCK_STREAM, MPTCP),
    "udp": (socket.SOCK_DGRAM, 0),
    "unix-stream": (socket.SOCK_STREAM, 0),
    "unix-dgram": (socket.SOCK_DGRAM, 0),
}


class Greeting(TypedDict):
    """`at`: the server's own address; `source`: the client's, as the server sees it; `original`: SO_ORIGINAL_DST."""

    at: str
    source: str
    original: str


def text_of(address: Any) -> str:
    """A socket address of Python as a case writes it: "1.2.3.4:5", "[::1]:5", "@name". An IPv4-mapped one is IPv6."""
    if isinstance(address, bytes):
        return os.fsdecode(address.replace(b"\0", b"@", 1))
    if isinstance(address, str) or address is None:
        return address or ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def original_of(connection: socket.socket) -> str:
    """What the client asked for, "" if the kernel does not know of another address."""
    for level, layout in ((socket.SOL_IP, _IN), (socket.IPPROTO_IPV6, _IN6)):
        try:
            _, port, address = layout.unpack(connection.getsockopt(level, SO_ORIGINAL_DST, layout.size))
        except OSError:
            continue
        return text_of((str(ipaddress.ip_address(address)), int.from_bytes(port, "big")))
    return ""


def open_server(kind: str, host: str, port: int) -> socket.socket:
    """Bound, and listening if it is of streams. `kind`: a key of `_KINDS`; `host` may be the name of a UNIX socket."""
    style, protocol = _KINDS[kind]
    if kind.startswith("unix"):
        made = socket.socket(socket.AF_UNIX, style)
        made.bind(host.replace("@", "\0", 1))
    else:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, style, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
    if style == socket.SOCK_STREAM:
        made.listen(1024)
    return made


def serve(servers: list[socket.socket], until_fd: int) -> None:
    """Answer everybody, until the other end of the pipe `until_fd` is closed."""
    waiting = selectors.DefaultSelector()
    waiting.register(until_fd, selectors.EVENT_READ)
    for server in servers:
        waiting.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fd == until_fd:
                return
            assert isinstance(key.fileobj, socket.socket)
            try:
                _answer(key.fileobj)
            except OSError as error:
                print(f"{text_of(key.fileobj.getsockname())}: {error}", file=sys.stderr)


def _answer(server: socket.socket) -> None:
    if server.type == socket.SOCK_DGRAM:
        sender = server.recvfrom(2048)[1]
        if sender:
            server.sendto(_greeting(server, sender, ""), sender)
        return
    connection, client = server.accept()
    with connection:
        inet = connection.family != socket.AF_UNIX
        connection.sendall(_greeting(connection, client, original_of(connection) if inet else ""))
        connection.settimeout(_PATIENCE_S)
        while connection.recv(2048):  # until the client has seen what it wanted to
            pass


def _greeting(server: socket.socket, client: Any, original: str) -> bytes:
    greeting = Greeting(at=text_of(server.getsockname()), source=text_of(client), original=original)
    return json.dumps(greeting).encode()
