# SPDX-License-Identifier: Apache-2.0
"""Unconnected UDP sockets: each datagram is redirected, and each answer seems to come from where the question went."""

from __future__ import annotations

import errno
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import libc
from support.rewriting import HEAD, Rewriting, errno_of, open_socket, receiver, rewriting
from support.uring import Ring

POLICY = (
    HEAD
    + """\
  egress:
    - {name: guard, action: deny, to: [127.0.0.3], errno: EHOSTUNREACH}
    - {name: kept, action: redirect, to: [192.0.2.10, "2001:db8::10"], redirect: {to: [127.0.0.1, "::1"]}, log: true}
    - {name: moved, action: redirect, to: [192.0.2.11, "2001:db8::11"],
       redirect: {to: ["127.0.0.1:8080", "[::1]:8080"]}}
    - {name: guarded, action: redirect, to: [192.0.2.13], redirect: {to: [127.0.0.3]}}
"""
)
CLOSED = (
    HEAD + "  egress: [{action: redirect, to: [192.0.2.10], redirect: {to: [127.0.0.1]}}]\n  default: {egress: deny}\n"
)
ASKED = [
    ("192.0.2.10", 8080),
    ("192.0.2.11", 80),
    ("2001:db8::10", 8080),
    ("2001:db8::11", 80),
    ("::ffff:192.0.2.10", 8080),
    ("::ffff:192.0.2.11", 80),
]
A, B, DIRECT = ("192.0.2.10", 8080), ("192.0.2.11", 80), ("127.0.0.1", 8080)


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


def sendto(sock: socket.socket, to: tuple[str, int]) -> None:
    sock.sendto(b"question", to)


def sendmsg(sock: socket.socket, to: tuple[str, int]) -> None:
    sock.sendmsg([b"question"], [], 0, to)


def sendmmsg(sock: socket.socket, to: tuple[str, int]) -> None:
    assert libc.sendmmsg(sock.fileno(), [libc.message(b"question", libc.sockaddr(*to))] * 2) == 2


def send_by_uring(sock: socket.socket, to: tuple[str, int]) -> None:
    with Ring() as ring:
        assert ring.sendmsg(sock.fileno(), libc.message(b"question", libc.sockaddr(*to))) == len(b"question")


def echo(server: socket.socket) -> None:
    server.sendto(*server.recvfrom(100))


def sender_of(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.recvfrom(100)[1][:2]
    return host, port


@pytest.mark.parametrize(("host", "port"), ASKED)
@pytest.mark.parametrize("send", [sendto, sendmsg, sendmmsg, send_by_uring])
def test_answer_comes_from_where_the_question_went(
    app: Rewriting, host: str, port: int, send: Callable[[socket.socket, tuple[str, int]], None]
) -> None:
    def talk() -> Any:
        with (
            receiver("127.0.0.1" if "." in host else "::1", 8080) as server,
            open_socket(host, socket.SOCK_DGRAM) as sock,
        ):
            send(sock, (host, port))
            echo(server)
            return sender_of(sock)

    assert app.call(talk) == (host, port)


@pytest.mark.parametrize(("own", "form", "seen"), [("::1", "auto", "::ffff:192.0.2.11"), ("127.0.0.1", "unspec", B[0])])
def test_ipv4_address_in_another_form_is_redirected(app: Rewriting, own: str, form: str, seen: str) -> None:
    """On an IPv6 socket, and without a family."""

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket(own, socket.SOCK_DGRAM) as sock:
            assert libc.sendto(sock.fileno(), b"x", 0, libc.sockaddr(*B, form)) == 1
            echo(server)
            return sender_of(sock)

    assert app.call(talk) == (seen, B[1])


@pytest.mark.parametrize("order", [(A, B), (B, A), (A, A, B), (B, A, B), (A, B, DIRECT), (DIRECT, A, DIRECT, B)])
def test_answers_of_one_target_are_told_apart_by_their_order(
    app: Rewriting, order: tuple[tuple[str, int], ...]
) -> None:
    """The questions go out together, and then the answers come in."""

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            sock.sendto(b"first", A)
            echo(server)
            assert sender_of(sock) == A
            for to in order:
                sock.sendto(b"question", to)
            for _ in order:
                echo(server)
            return tuple(sender_of(sock) for _ in order)

    assert app.call(talk) == order


def test_answers_in_order_are_told_apart_in_every_order_of_questions(app: Rewriting) -> None:
    """One socket, so that what an order leaves behind would show in the next one."""
    orders = list(itertools.product((A, B), repeat=6))

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            seen = []
            for order in orders:
                for to in order:
                    sock.sendto(b"question", to)
                for _ in order:
                    echo(server)
                seen.append(tuple(sender_of(sock) for _ in order))
            return seen

    assert app.call(talk) == orders


def test_answer_that_was_lost_does_not_shift_those_that_follow(app: Rewriting) -> None:
    """While the socket goes on talking to both: before it is known how long answers take, and after."""

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            seen = []
            for to in (A, B) * 2:
                sock.sendto(b"lost", A)
                server.recvfrom(100)
                time.sleep(0.3)
                for asked in (to, B, A, B):
                    sock.sendto(b"question", asked)
                    echo(server)
                    seen.append(sender_of(sock) == asked)
            return seen

    assert app.call(talk) == [True] * 16


def test_slow_answer_is_told_from_quick_ones(app: Rewriting) -> None:
    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            seen = []
            for asked in (A, B):
                sock.sendto(b"question", asked)
                echo(server)
                seen.append(sender_of(sock))
            sock.sendto(b"slow", A)
            slow = server.recvfrom(100)
            time.sleep(0.3)
            sock.sendto(b"quick", B)
            echo(server)
            seen.append(sender_of(sock))
            server.sendto(*slow)
            seen.append(sender_of(sock))
            return seen

    assert app.call(talk) == [A, B, B, A]


def test_answer_that_is_looked_at_is_the_same_when_it_is_received(app: Rewriting) -> None:
    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            for to in (A, B):
                sock.sendto(b"question", to)
            for _ in range(2):
                echo(server)
            return [sock.recvfrom(100, flag)[1] for flag in (socket.MSG_PEEK, socket.MSG_PEEK, 0) * 2]

    assert app.call(talk) == [A] * 3 + [B] * 3


def test_answers_are_told_apart_one_by_one(app: Rewriting) -> None:
    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            seen = []
            for to in (A, B, DIRECT, B, A, DIRECT):
                sock.sendto(b"question", to)
                echo(server)
                seen.append(sender_of(sock))
            return seen

    assert app.call(talk) == [A, B, DIRECT, B, A, DIRECT]


def test_direct_peer_is_shown_as_it_is(app: Rewriting) -> None:
    """On a socket that was never redirected, and by one that nobody asked anything."""

    def talk() -> Any:
        with (
            receiver("127.0.0.1", 8080) as server,
            receiver("127.0.0.1", 9090) as other,
            receiver("127.0.0.1", 7070) as sock,
        ):
            sock.sendto(b"question", DIRECT)
            echo(server)
            plain = sender_of(sock)
            sock.sendto(b"question", A)
            other.sendto(b"unasked", ("127.0.0.1", 7070))
            return plain, sender_of(sock)

    assert app.call(talk) == (DIRECT, ("127.0.0.1", 9090))


def test_more_destinations_than_are_kept_show_the_latest(app: Rewriting) -> None:
    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            for port in range(1, 41):
                sock.sendto(b"question", ("192.0.2.11", port))
                server.recvfrom(100)
            sock.sendto(b"question", A)
            echo(server)
            return sender_of(sock)

    found = app.call(talk)
    assert found in [A, *((B[0], port) for port in range(26, 41))]


def test_disconnected_socket_sends_anew(app: Rewriting) -> None:
    """connect(A), connect(AF_UNSPEC), sendto(B)."""

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            sock.connect(A)
            assert libc.connect(sock.fileno(), bytes(16)) == 0
            sock.sendto(b"question", B)
            echo(server)
            return sender_of(sock), errno_of(sock.getpeername)

    assert app.call(talk) == (B, errno.ENOTCONN)


def test_connected_socket_sends_elsewhere_too(app: Rewriting) -> None:
    """connect(A), sendto(the other one's address): the datagram goes there, the peer stays."""

    def talk() -> Any:
        with (
            receiver("127.0.0.1", 8080) as server,
            receiver("127.0.0.1", 9090) as other,
            open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock,
        ):
            sock.connect(A)
            sock.sendto(b"elsewhere", ("192.0.2.10", 9090))
            sock.sendto(b"to the peer", A)
            return other.recv(100), server.recv(100), sock.getpeername()

    assert app.call(talk) == (b"elsewhere", b"to the peer", A)


def test_datagram_to_a_denied_target_is_denied(app: Rewriting) -> None:
    def talk() -> int:
        with open_socket("192.0.2.13", socket.SOCK_DGRAM) as sock:
            return errno_of(lambda: sock.sendto(b"question", ("192.0.2.13", 80)))

    assert app.call(talk) == errno.EHOSTUNREACH


def test_target_is_denied_when_it_is_named_itself(app: Rewriting) -> None:
    """What is redirected may go where the program may not: in the redirect's stead only."""

    def talk() -> Any:
        with receiver("127.0.0.1", 8080) as server, open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            sock.sendto(b"question", A)
            server.recvfrom(100)
            refused = errno_of(lambda: sock.sendto(b"question", DIRECT))
            sock.connect(A)
            sock.sendmsg([b"x"], [(socket.IPPROTO_IP, socket.IP_TOS, b"\x08\0\0\0")])
            return refused, server.recv(100)

    app.load(CLOSED)
    try:
        assert app.call(talk) == (errno.EPERM, b"x")
    finally:
        app.load(POLICY)


def test_event_and_count_tell_the_redirect(app: Rewriting) -> None:
    app.load(POLICY)
    app.records()

    def talk() -> Any:
        with receiver("127.0.0.1", 8080), open_socket("192.0.2.10", socket.SOCK_DGRAM) as sock:
            for _ in range(3):
                sock.sendto(b"question", A)
            sock.sendto(b"question", B)

    app.call(talk)
    assert (app.count("kept"), app.count("moved")) == (3, 1)
    *_, record = told = app.records()
    assert len(told) == 3
    assert (record.address_text, record.port, record.rewritten, record.denied) == ("192.0.2.10", 8080, True, False)
    assert (record.new_address_text, record.new_port, record.shadow_rewritten) == ("127.0.0.1", 8080, True)
