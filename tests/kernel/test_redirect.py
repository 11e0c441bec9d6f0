# SPDX-License-Identifier: Apache-2.0
"""Redirected connections arrive at the target, however they are made, and the program sees what it asked for."""

from __future__ import annotations

import errno
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import libc
from support.calls import MPTCP
from support.rewriting import HEAD, Rewriting, errno_of, listener, open_socket, receiver, rewriting
from support.uring import Ring

POLICY = (
    HEAD
    + """\
  egress:
    - {name: guard, action: deny, to: [127.0.0.3], errno: EHOSTUNREACH}
    - {name: kept, action: redirect, to: [192.0.2.10, "2001:db8::10"], redirect: {to: [127.0.0.1, "::1"]}}
    - {name: moved, action: redirect, to: [192.0.2.11, "2001:db8::11"],
       redirect: {to: ["127.0.0.1:8080", "[::1]:8080"]}}
    - {name: closed, action: redirect, to: [192.0.2.12], redirect: {to: ["127.0.0.1:1"]}}
    - {name: guarded, action: redirect, to: [192.0.2.13], redirect: {to: [127.0.0.3]}}
    - {name: again, action: redirect, to: [127.0.0.2], redirect: {to: [127.0.0.1]}}
    - {name: chain, action: redirect, to: [192.0.2.14], redirect: {to: [127.0.0.2]}}
"""
)
ASKED = [
    ("192.0.2.10", 8080),
    ("192.0.2.11", 80),
    ("2001:db8::10", 8080),
    ("2001:db8::11", 80),
    ("::ffff:192.0.2.10", 8080),
    ("::ffff:192.0.2.11", 80),
]
TCP_FASTOPEN_CONNECT = 30
NOWHERE = struct.pack("=H", socket.AF_UNSPEC) + bytes(14)


def server_of(host: str) -> str:
    return "127.0.0.1" if "." in host else "::1"


def peer_of(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getpeername()[:2]
    return host, port


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


def connect(sock: socket.socket, to: tuple[str, int]) -> None:
    sock.connect(to)


def connect_by_uring(sock: socket.socket, to: tuple[str, int]) -> None:
    with Ring() as ring:
        assert ring.connect(sock.fileno(), libc.sockaddr(*to)) == 0


def fast_open(sock: socket.socket, to: tuple[str, int]) -> None:
    sock.sendto(b"early", socket.MSG_FASTOPEN, to)


def fast_open_connect(sock: socket.socket, to: tuple[str, int]) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sock.connect(to)
    sock.sendall(b"early")


@pytest.mark.parametrize(("host", "port"), ASKED)
@pytest.mark.parametrize("protocol", [0, MPTCP])
@pytest.mark.parametrize("way", [connect, connect_by_uring, fast_open, fast_open_connect])
def test_tcp_arrives_and_shows_what_was_asked(
    app: Rewriting, host: str, port: int, protocol: int, way: Callable[[socket.socket, tuple[str, int]], None]
) -> None:
    def talk() -> Any:
        with (
            listener(server_of(host), 8080, protocol) as server,
            open_socket(host, socket.SOCK_STREAM, protocol) as sock,
        ):
            if not protocol or way is not fast_open_connect:  # MPTCP has no such option
                way(sock, (host, port))
            else:
                connect(sock, (host, port))
            accepted, client = server.accept()
            with accepted:
                accepted.sendall(b"x")
                return peer_of(sock), sock.recv(1), client[1] == sock.getsockname()[1], accepted.getsockname()[1]

    assert app.call(talk) == ((host, port), b"x", True, 8080)


def test_accept_shows_the_client_as_it_is(app: Rewriting) -> None:
    def talk() -> Any:
        with listener("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_STREAM) as sock:
            sock.connect(("192.0.2.10", 8080))
            accepted, client = server.accept()
            with accepted:
                return client == sock.getsockname(), accepted.getpeername() == client, accepted.getsockname()

    assert app.call(talk) == (True, True, ("127.0.0.1", 8080))


def test_target_without_a_listener_refuses_and_the_socket_can_go_elsewhere(app: Rewriting) -> None:
    def talk() -> Any:
        with listener("127.0.0.1", 8080), open_socket("192.0.2.10", socket.SOCK_STREAM) as sock:
            refused = sock.connect_ex(("192.0.2.12", 9)), errno_of(sock.getpeername)
            sock.connect(("127.0.0.1", 8080))
            return refused, peer_of(sock)

    assert app.call(talk) == ((errno.ECONNREFUSED, errno.ENOTCONN), ("127.0.0.1", 8080))


def test_target_that_an_earlier_rule_denies_is_denied(app: Rewriting) -> None:
    def talk() -> int:
        with open_socket("192.0.2.13", socket.SOCK_STREAM) as sock:
            return sock.connect_ex(("192.0.2.13", 80))

    assert app.call(talk) == errno.EHOSTUNREACH


def test_target_is_not_redirected_again(app: Rewriting) -> None:
    def talk() -> Any:
        with (
            listener("127.0.0.2", 8080) as right,
            listener("127.0.0.1", 8080),
            open_socket("192.0.2.14", socket.SOCK_STREAM) as sock,
        ):
            sock.connect(("192.0.2.14", 8080))
            accepted, _ = right.accept()
            with accepted:
                return accepted.getsockname(), peer_of(sock)

    assert app.call(talk) == (("127.0.0.2", 8080), ("192.0.2.14", 8080))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_ipv6_only_socket_is_refused_by_the_kernel(app: Rewriting, kind: int) -> None:
    def talk() -> Any:
        with open_socket("::1", kind) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            failed = errno_of(lambda: sock.connect(("::ffff:192.0.2.10", 8080)))
            return failed, errno_of(sock.getpeername)

    assert app.call(talk) == (errno.ENETUNREACH, errno.ENOTCONN)


@pytest.mark.parametrize(("host", "port"), ASKED)
@pytest.mark.parametrize("way", [connect, connect_by_uring])
def test_connected_udp_shows_what_was_asked(
    app: Rewriting, host: str, port: int, way: Callable[[socket.socket, tuple[str, int]], None]
) -> None:
    def talk() -> Any:
        with receiver(server_of(host), 8080) as server, open_socket(host, socket.SOCK_DGRAM) as sock:
            way(sock, (host, port))
            sock.send(b"question")
            data, client = server.recvfrom(100)
            server.sendto(data, client)
            answer, sender = sock.recvfrom(100)
            return peer_of(sock), answer, sender[:2]

    assert app.call(talk) == ((host, port), b"question", (host, port))


def test_ipv4_address_on_an_ipv6_udp_socket_is_redirected(app: Rewriting) -> None:
    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("::1", socket.SOCK_DGRAM) as sock:
            assert libc.connect(sock.fileno(), libc.sockaddr("192.0.2.11", 80)) == 0
            sock.send(b"question")
            server.sendto(b"answer", server.recvfrom(100)[1])
            return peer_of(sock), sock.recvfrom(100)[1][:2]

    assert app.call(talk) == (("::ffff:192.0.2.11", 80), ("::ffff:192.0.2.11", 80))


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize(("host", "port"), ASKED)
def test_connected_udp_sends_to_its_peer_with_control_messages(
    app: Rewriting, host: str, port: int, explicit: bool
) -> None:
    level, kind = (socket.IPPROTO_IP, socket.IP_TOS) if ":" not in host else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)

    def talk() -> Any:
        with receiver(server_of(host), 8080) as server, open_socket(host, socket.SOCK_DGRAM) as sock:
            sock.connect((host, port))
            address = ((host, port),) if explicit else ()
            sock.sendmsg([b"question"], [(level, kind, struct.pack("=i", 8))], 0, *address)
            data, client = server.recvfrom(100)
            server.sendto(data, client)
            return sock.recvfrom(100)[1][:2], peer_of(sock)

    assert app.call(talk) == ((host, port), (host, port))


def test_udp_peer_is_the_truth_after_each_connect(app: Rewriting) -> None:
    """To one address, directly to its target, to another one with the same target, to nowhere and back."""

    def talk() -> Any:
        with open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            seen = []
            for to in (("192.0.2.10", 8080), ("127.0.0.1", 8080), ("192.0.2.11", 80), ("127.0.0.1", 8080)):
                sock.connect(to)
                seen.append(peer_of(sock))
            assert libc.connect(sock.fileno(), NOWHERE) == 0
            gone = errno_of(sock.getpeername)
            sock.connect(("192.0.2.10", 8080))
            return seen, gone, peer_of(sock)

    to = [("192.0.2.10", 8080), ("127.0.0.1", 8080), ("192.0.2.11", 80), ("127.0.0.1", 8080)]
    assert app.call(talk) == (to, errno.ENOTCONN, ("192.0.2.10", 8080))


def test_udp_connect_that_fails_leaves_the_peer_that_was(app: Rewriting) -> None:
    """Denied by a rule, and then refused by the kernel: there is no route."""

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            sock.connect(("192.0.2.10", 8080))
            failed = sock.connect_ex(("127.0.0.3", 9)), sock.connect_ex(("198.51.100.1", 9))
            sock.send(b"question")
            server.sendto(b"answer", server.recvfrom(100)[1])
            return failed, peer_of(sock), sock.recvfrom(100)[1]

    expected = ("192.0.2.10", 8080)
    assert app.call(talk) == ((errno.EHOSTUNREACH, errno.ENETUNREACH), expected, expected)


def test_view_of_a_redirected_socket_outlives_a_reload(app: Rewriting) -> None:
    def talk(reload: Callable[[], None]) -> Any:
        with listener("127.0.0.1", 8080), open_socket("192.0.2.10", socket.SOCK_STREAM) as sock:
            sock.connect(("192.0.2.10", 8080))
            before = peer_of(sock)
            reload()
            return before, peer_of(sock)

    try:
        other = HEAD + "  egress: [{action: allow, to: [192.0.2.99]}]\n"
        assert app.call_reloading(talk, other) == (("192.0.2.10", 8080), ("192.0.2.10", 8080))
    finally:
        app.load(POLICY)


def test_view_is_gone_with_a_direct_connect_where_nothing_governs_any_more(app: Rewriting) -> None:
    def talk(reload: Callable[[], None]) -> Any:
        with open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            sock.connect(("192.0.2.10", 8080))
            reload()
            seen = []
            for _ in range(2):  # the second time it is known that nothing governs
                sock.connect(("127.0.0.1", 8080))
                seen.append(peer_of(sock))
            return seen

    try:
        ungoverned = HEAD.replace("/app", "/other") + "  egress: [{action: allow}]\n"
        assert app.call_reloading(talk, ungoverned) == [("127.0.0.1", 8080)] * 2
    finally:
        app.load(POLICY)


@pytest.mark.parametrize("protocol", [0, MPTCP])
def test_connect_is_judged_once(app: Rewriting, protocol: int) -> None:
    def talk() -> None:
        with listener("127.0.0.1", 8080, protocol), open_socket("192.0.2.10", socket.SOCK_STREAM, protocol) as sock:
            sock.connect(("192.0.2.10", 8080))

    app.load(POLICY)
    app.call(talk)
    assert (app.count("kept"), app.count("default_action")) == (1, 0)


NETWORK = """mptcp limits set subflow 2 add_addr_accepted 2
mptcp endpoint add 10.31.0.9 dev lo subflow fullmesh
"""
EXTRA = (
    HEAD
    + """\
  egress: [{name: away, action: redirect, to: [192.0.2.10], redirect: {to: [10.31.0.1]}}]
  default: {egress: deny}
"""
)
SOL_MPTCP, MPTCP_INFO = 284, 1
PATIENCE_S = 60.0


@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip command")
def test_further_subflow_of_a_redirected_connection_is_judged_as_the_connection(app: Rewriting) -> None:
    """It goes to the target, which the program may not name itself, from another local address."""

    def talk() -> Any:
        subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, check=True)
        with listener("10.31.0.1", 5000, MPTCP) as server, open_socket("192.0.2.10", socket.SOCK_STREAM, MPTCP) as sock:
            sock.connect(("192.0.2.10", 5000))
            accepted, _ = server.accept()
            extra, until = 0, time.monotonic() + PATIENCE_S
            with accepted:
                while not extra and time.monotonic() < until:
                    sock.sendall(b"x")
                    accepted.recv(1)
                    accepted.sendall(b"y")
                    sock.recv(1)
                    time.sleep(0.02)
                    extra = sock.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)[0]
            with open_socket("10.31.0.1", socket.SOCK_STREAM, MPTCP) as other:
                return extra, peer_of(sock), other.connect_ex(("10.31.0.1", 5000))

    try:
        app.records()  # those of other policies
        app.load(EXTRA)
        assert app.call(talk, "10.31.0.1", "10.31.0.9") == (1, ("192.0.2.10", 5000), errno.EPERM)
        assert app.count("away") == 2
        # The kernel may also try a subflow of its own from the accepting side, which is denied by its socket.
        denied = [(record.address_text, record.port) for record in app.records() if not record.by_socket]
        assert denied == [("10.31.0.1", 5000)]
    finally:
        app.load(POLICY)
