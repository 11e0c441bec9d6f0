# SPDX-License-Identifier: Apache-2.0
"""Flows leave from the source address that a rule gives them, with a port as usual."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.datapath import abi
from support import libc
from support.calls import MPTCP
from support.rewriting import HEAD, Rewriting, errno_of, listener, open_socket, receiver, rewriting

POLICY = (
    HEAD
    + """\
  egress:
    - {name: both, action: redirect, to: [192.0.2.10], redirect: {to: ["127.0.0.1:8080"]},
       source: {address: 10.0.0.7}, log: true}
    - {name: four, action: allow, to: [127.0.0.0/8], ports: [8080], source: {address: 10.0.0.7}, log: true}
    - {name: six, action: allow, to: ["::1"], ports: [8080], source: {address: "2001:db8::7"}}
    - {name: host, action: allow, to: [127.0.0.0/8], ports: [9090], source: {address: 127.0.0.9}, log: true}
"""
)
ADDRESSES = ("10.0.0.7", "10.0.0.8", "2001:db8::7")


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


@pytest.fixture(autouse=True)
def _no_old_events(app: Rewriting) -> None:
    app.records()


CONNECTS = [
    ("127.0.0.1", "127.0.0.1", "10.0.0.7"),
    ("192.0.2.10", "127.0.0.1", "10.0.0.7"),
    ("::1", "::1", "2001:db8::7"),
    ("::ffff:127.0.0.1", "127.0.0.1", "10.0.0.7"),
    ("::ffff:192.0.2.10", "127.0.0.1", "10.0.0.7"),
]


@pytest.mark.parametrize(("host", "server_host", "source"), CONNECTS)
@pytest.mark.parametrize("protocol", [0, MPTCP])
def test_connection_leaves_from_the_source(
    app: Rewriting, host: str, server_host: str, source: str, protocol: int
) -> None:
    def talk() -> Any:
        with (
            listener(server_host, 8080, protocol) as server,
            open_socket(host, socket.SOCK_STREAM, protocol) as sock,
        ):
            sock.connect((host, 8080))
            accepted, client = server.accept()
            with accepted:
                return client[0], client[1] == sock.getsockname()[1] > 1023

    assert app.call(talk, *ADDRESSES) == (source, True)


@pytest.mark.parametrize(("host", "server_host", "source"), CONNECTS)
@pytest.mark.parametrize("connected", [False, True])
def test_datagram_leaves_from_the_source(
    app: Rewriting, host: str, server_host: str, source: str, connected: bool
) -> None:
    def talk() -> Any:
        with receiver(server_host, 8080) as server, open_socket(host, socket.SOCK_DGRAM) as sock:
            if connected:
                sock.connect((host, 8080))
                sock.connect((host, 8080))  # again: the socket has that source already
                sock.send(b"question")
            else:
                sock.sendto(b"question", (host, 8080))
            _, client = server.recvfrom(100)
            server.sendto(b"answer", client)
            return client[0], sock.recvfrom(100)[1][:2]

    assert app.call(talk, *ADDRESSES) == (source, (host, 8080))


def test_ports_last_for_more_connections_than_there_are_ports(app: Rewriting) -> None:
    """A port that is picked before the destination is known serves one connection; here it serves one to each."""

    def talk() -> Any:
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("50000 50009")
        with listener("0.0.0.0", 8080) as server:
            pairs = []
            for number in range(30):
                sock = open_socket("127.0.0.1", socket.SOCK_STREAM)
                sock.connect((f"127.0.0.{1 + number % 5}", 8080))
                pairs.append((sock, *server.accept()))
            sources = {client for _, _, client in pairs}
            for sock, accepted, _ in pairs:
                sock.close()
                accepted.close()
            return len({host for host, _ in sources}), len({port for _, port in sources}) <= 10, len(pairs)

    assert app.call(talk, *ADDRESSES) == (1, True, 30)


def bind_elsewhere(sock: socket.socket) -> None:
    sock.bind(("10.0.0.8", 0))


def bind_a_port(sock: socket.socket) -> None:
    sock.bind(("0.0.0.0", 0))


def bind_the_same(sock: socket.socket) -> None:
    sock.bind(("10.0.0.7", 0))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize(
    ("bind", "expected"),
    [(bind_elsewhere, errno.EADDRNOTAVAIL), (bind_a_port, errno.EADDRNOTAVAIL), (bind_the_same, 0)],
)
def test_socket_that_is_bound_otherwise_is_denied(
    app: Rewriting, kind: int, bind: Callable[[socket.socket], None], expected: int
) -> None:
    def talk() -> int:
        with listener("127.0.0.1", 8080), open_socket("127.0.0.1", kind) as sock:
            bind(sock)
            return sock.connect_ex(("127.0.0.1", 8080))

    assert app.call(talk, *ADDRESSES) == expected
    (record,) = app.records()
    assert (record.denied, record.errno) == (bool(expected), expected)
    assert record.reason == (abi.REASON_NO_SOURCE if expected else abi.REASON_NONE)
    assert record.local_address_text == "10.0.0.7"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_source_that_the_host_lacks_is_told(app: Rewriting, kind: int) -> None:
    """No address 10.0.0.7 in this namespace: the kernel refuses to bind to it."""

    def talk() -> int:
        with open_socket("127.0.0.1", kind) as sock:
            return sock.connect_ex(("127.0.0.1", 8080))

    assert app.call(talk) == errno.EADDRNOTAVAIL
    (record,) = app.records()
    assert (record.errno, record.reason) == (errno.EADDRNOTAVAIL, abi.REASON_NO_SOURCE)


def test_datagram_of_a_source_that_the_host_lacks_is_told(app: Rewriting) -> None:
    """Known by the live cell, in the daemon's network namespace; another one's kernel finds out by itself."""

    def talk() -> int:
        with open_socket("127.0.0.1", socket.SOCK_DGRAM) as sock:
            return errno_of(lambda: sock.sendto(b"question", ("127.0.0.1", 9090)))

    assert app.app.call(talk) == 0
    with app.enforcement.live() as live:
        cell = app.enforcement.image.live.source_cell(app.enforcement.image.live.sources.index("127.0.0.9"))
        live.set(cell, 0)
        assert app.app.call(talk) == errno.EADDRNOTAVAIL
        assert app.call(talk) == 0  # every 127.0.0.0/8 address is there
        live.set(cell, 1)
        assert app.app.call(talk) == 0
    assert [record.reason for record in app.records() if record.denied] == [abi.REASON_NO_SOURCE]


def test_disconnected_socket_takes_the_source_of_another_rule(app: Rewriting) -> None:
    """As the sorting of a name's addresses does: one socket, connected to one after the other."""

    def talk() -> Any:
        with receiver("0.0.0.0", 8080) as server, open_socket("127.0.0.1", socket.SOCK_DGRAM) as sock:
            seen = []
            for port in (9090, 8080, 9090, 8080):
                sock.connect(("127.0.0.1", port))
                seen.append(sock.getsockname()[0])
                if port == 8080:
                    sock.send(b"question")
                    seen.append(server.recvfrom(100)[1][0])
                assert libc.connect(sock.fileno(), bytes(16)) == 0
            sock.bind(("10.0.0.8", 0))
            return seen, sock.connect_ex(("127.0.0.1", 8080))

    expected = ["127.0.0.9", "10.0.0.7", "10.0.0.7"] * 2
    assert app.call(talk, *ADDRESSES) == (expected, errno.EADDRNOTAVAIL)


def test_ipv4_address_on_an_ipv6_socket_leaves_from_the_source(app: Rewriting) -> None:
    def talk() -> Any:
        with (
            receiver("127.0.0.1", 8080) as server,
            open_socket("::1", socket.SOCK_DGRAM) as other,
            open_socket("::1", socket.SOCK_DGRAM) as sock,
        ):
            assert libc.sendto(other.fileno(), b"question", 0, libc.sockaddr("127.0.0.1", 8080)) > 0
            first = server.recvfrom(100)[1][0]
            assert libc.connect(sock.fileno(), libc.sockaddr("127.0.0.1", 8080)) == 0
            sock.send(b"question")
            return first, server.recvfrom(100)[1][0], sock.getsockname()[0]

    assert app.call(talk, *ADDRESSES) == ("10.0.0.7", "10.0.0.7", "::ffff:10.0.0.7")


@pytest.mark.parametrize("explicit", [False, True])
def test_socket_connected_before_the_rule_keeps_its_source_and_peer(app: Rewriting, explicit: bool) -> None:
    def talk(reload: Callable[[], None]) -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("127.0.0.1", socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", 8080))
            reload()
            address = (("127.0.0.1", 8080),) if explicit else ()
            sock.sendmsg([b"question"], [(socket.IPPROTO_IP, socket.IP_TOS, b"\x08\0\0\0")], 0, *address)
            return server.recvfrom(100)[1][0]

    try:
        app.load(HEAD + "  egress: [{action: allow}]\n")
        assert app.call_reloading(talk, POLICY) == "127.0.0.1"
        app.load(HEAD + "  egress: [{action: allow}]\n")
        away = HEAD + "  egress: [{action: redirect, to: [127.0.0.1], redirect: {to: [127.0.0.2]}}]\n"
        assert app.call_reloading(talk, away) == "127.0.0.1"
    finally:
        app.load(POLICY)


def test_socket_without_a_rule_keeps_its_own_source(app: Rewriting) -> None:
    def talk() -> Any:
        with receiver("127.0.0.1", 7070) as server, open_socket("127.0.0.1", socket.SOCK_DGRAM) as sock:
            sock.sendto(b"question", ("127.0.0.1", 8080))
            assert libc.sendto(sock.fileno(), b"question", 0, libc.sockaddr("127.0.0.1", 7070)) > 0
            return server.recvfrom(100)[1][0]

    assert app.call(talk, *ADDRESSES) == "127.0.0.1"
