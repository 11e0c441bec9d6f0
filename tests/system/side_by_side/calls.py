# SPDX-License-Identifier: Apache-2.0
"""The calls of a case, made for real by one process of a unit, and what became of each, as JSON.

Runs inside the machine as a program: it may import nothing but the standard library and support.uring, which is put
beside it. Must not know who governs it, nor what is expected.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from support.uring import Ring

OK, SILENCE = "ok", "silence"
ECHO_PORT = 7
BYSTANDER_PATH = "/run/side/bystander.sock"
CONNECTED_PATH, CHANGED_PATH = "/run/side/connected", "/run/side/changed"
CHANGE_WITHIN_S = 40.0
PATIENCE_S = 2.5  # for an answer of this host or its neighbour; after 3 s the kernel says that there is no neighbour
_MPTCP = 262
_PING_ID = 0x51DE
_ECHO = {socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0, 20), socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129, 0)}
_KINDS = {"stream": socket.SOCK_STREAM, "dgram": socket.SOCK_DGRAM, "raw": socket.SOCK_RAW}
_TRANSPORTS = {"tcp": (socket.SOCK_STREAM, 0), "mptcp": (socket.SOCK_STREAM, _MPTCP), "udp": (socket.SOCK_DGRAM, 0)}


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(transport: str, address: str) -> socket.socket:
    kind, protocol = _TRANSPORTS[transport]
    made = socket.socket(family_of(address), kind, protocol)
    made.settimeout(PATIENCE_S)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def connect(transport: str, address: str, port: str = str(ECHO_PORT)) -> None:
    """And hear an echo: datagrams are sent with their destination, without connect()."""
    with opened(transport, address) as made:
        if transport == "udp":
            made.sendto(b"x", (address, int(port)))
        else:
            made.connect((address, int(port)))
            made.sendall(b"x")
        _hear(made)


def fast_open(address: str) -> None:
    with opened("tcp", address) as made:
        made.settimeout(None)  # what does not block does not wait for the connection
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        try:
            made.sendto(b"x", socket.MSG_FASTOPEN, (address, ECHO_PORT))
        except BlockingIOError:
            raise TimeoutError from None
        made.settimeout(PATIENCE_S)
        _hear(made)


def established(address: str) -> None:
    """A connection that is there before things change: hears an echo afterwards."""
    with opened("tcp", address) as made:
        made.connect((address, ECHO_PORT))
        Path(CONNECTED_PATH).touch()
        deadline = time.monotonic() + CHANGE_WITHIN_S
        while not Path(CHANGED_PATH).exists():
            if time.monotonic() > deadline:
                raise OSError(errno.ETIME, "nobody changed anything")
            time.sleep(0.02)
        made.sendall(b"x")
        _hear(made)


def ping(address: str) -> None:
    """As root's ping does without ping sockets: a raw socket."""
    family = family_of(address)
    protocol, request, reply, offset = _ECHO[family]
    checksum = 0xFFFF - (request << 8) - _PING_ID - 1 & 0xFFFF  # of ICMPv6 the kernel makes it
    with socket.socket(family, socket.SOCK_RAW, protocol) as made:
        made.settimeout(PATIENCE_S)
        made.sendto(struct.pack("!BBHHH", request, 0, checksum, _PING_ID, 1), (address, 0))
        while True:  # raw sockets hear others' answers too, and on loopback the question
            heard, (sender, *_) = made.recvfrom(1500)
            if sender == address and heard[offset] == reply:
                return


def accept(address: str) -> None:
    """Be connected to, by a process that is not governed."""
    with opened("tcp", address) as made:
        made.bind((address, 0))
        made.listen()
        with _bystander(f"connect {address} {made.getsockname()[1]}"):
            made.accept()[0].close()


def given(what: str, transport: str, address: str, port: str = str(ECHO_PORT)) -> None:
    """Send by, or bind, a socket of a process that is not governed."""
    with _bystander(f"give {transport}") as bystander:
        [fd] = socket.recv_fds(bystander, 1, 1)[1]
    with socket.socket(fileno=fd) as made:
        made.settimeout(PATIENCE_S)
        if what == "bind":
            made.bind((address, int(port)))
        else:
            made.sendto(b"x", (address, int(port)))
            _hear(made)


def _bystander(request: str) -> socket.socket:
    bystander = socket.socket(socket.AF_UNIX)
    bystander.connect(BYSTANDER_PATH)
    bystander.sendall(f"{request}\n".encode())
    return bystander


def bind(transport: str, address: str, port: str, *options: str) -> None:
    with opened(transport, address) as made:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int("v6only" in options))
        made.bind((address, int(port)))


def listen(transport: str, address: str) -> None:
    """Without bind(): the kernel picks a port on every address."""
    with opened(transport, address) as made:
        made.listen()


def make_socket(family: str, kind: str) -> None:
    protocol = socket.IPPROTO_UDP if kind == "raw" and family.startswith("AF_INET") else 0
    socket.socket(getattr(socket, family), _KINDS[kind], protocol).close()


def io_uring_socket(family: str, kind: str) -> None:
    with Ring() as ring:
        made = ring.socket(getattr(socket, family), _KINDS[kind], 0)
    if made < 0:
        raise OSError(-made, "io_uring")
    socket.socket(fileno=made).close()


def unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)


def _hear(made: socket.socket) -> None:
    if not made.recv(16):
        raise ConnectionResetError(errno.ECONNRESET, "no echo")


_CALLS: dict[str, Callable[..., None]] = {
    **{transport: partial(connect, transport) for transport in _TRANSPORTS},
    "fast-open": fast_open,
    "established": established,
    "ping": ping,
    "accept": accept,
    "given": given,
    "bind": bind,
    "listen": listen,
    "socket": make_socket,
    "io_uring": io_uring_socket,
    "unix": unix,
}
_WAITING = (*_TRANSPORTS, "fast-open", "established", "ping", "accept", "given send")


def outcome(call: str) -> str:
    """OK, SILENCE, or the errno by name."""
    name, *words = call.split()
    try:
        _CALLS[name](*words)
    except TimeoutError as error:
        return SILENCE if error.errno is None else errno.errorcode[error.errno]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return OK


def main() -> None:
    """Those that may have to wait wait at the same time; the others are made in order."""
    calls = json.loads(sys.argv[1])
    waiting = [call for call in calls if call.startswith(_WAITING)]
    with ThreadPoolExecutor(max(1, len(waiting))) as pool:
        found = dict(zip(waiting, pool.map(outcome, waiting), strict=True))
    print(json.dumps({call: found.get(call) or outcome(call) for call in calls}))


if __name__ == "__main__":
    main()
