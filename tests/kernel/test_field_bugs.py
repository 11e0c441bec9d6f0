# SPDX-License-Identifier: Apache-2.0
"""What other rewriting data planes got wrong in the field: which peer a program sees, and where its calls go."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.kernel.features import COSTS, Features
from support import libc
from support.rewriting import HEAD, Rewriting, errno_of, listener, open_socket, receiver, rewriting
from support.uring import Ring

POLICY = (
    HEAD
    + """\
  egress:
    - {name: guard, action: deny, to: [127.0.0.3, "::3"], errno: EHOSTUNREACH}
    - {name: one, action: redirect, to: [192.0.2.1, "2001:db8::1"], redirect: {to: ["127.0.0.1:5300", "[::1]:5300"]}}
    - {name: two, action: redirect, to: [192.0.2.2, "2001:db8::2"], redirect: {to: ["127.0.0.1:5300", "[::1]:5300"]}}
    - {name: denied, action: redirect, to: [192.0.2.3, "2001:db8::3"], redirect: {to: [127.0.0.3, "::3"]}}
    - {name: names, action: redirect, unix: ["@asked"], redirect: {unix: "@given"}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: mesh}
spec:
  subject: {cgroups: [/mesh]}
  egress: [{name: all, action: redirect, to: [192.0.2.1], redirect: {to: "127.0.0.1:15001"}}]
"""
)
HOSTS = {  # first and second virtual address, and the one whose target is denied, with one backend behind all
    "v4": ("192.0.2.1", "192.0.2.2", "192.0.2.3", "127.0.0.1"),
    "v6": ("2001:db8::1", "2001:db8::2", "2001:db8::3", "::1"),
    "mapped": ("::ffff:192.0.2.1", "::ffff:192.0.2.2", "::ffff:192.0.2.3", "::ffff:127.0.0.1"),
}
BACKEND_PORT = 5300
NOWHERE = struct.pack("=H", socket.AF_UNSPEC) + bytes(26)
SOL_UDP, UDP_SEGMENT = 17, 103
IP_PKTINFO = 8


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


@pytest.fixture(params=HOSTS)
def hosts(request: pytest.FixtureRequest) -> tuple[str, str, str, str]:
    return HOSTS[request.param]


def backend_of(host: str) -> socket.socket:
    return receiver(host.removeprefix("::ffff:"), BACKEND_PORT)


def peer_of(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getpeername()[:2]
    return host, port


def sender_of(sock: socket.socket, flags: int = 0) -> tuple[bytes, tuple[str, int]]:
    data, address = sock.recvfrom(100, flags)
    return data, address[:2]


def echo(server: socket.socket) -> None:
    data, client = server.recvfrom(100)
    server.sendto(data, client)


def test_answers_of_addresses_that_share_a_backend_come_from_who_was_asked(
    app: Rewriting, hosts: tuple[str, str, str, str]
) -> None:
    """In turns, and with both questions outstanding, in either order."""
    one, two, _, backend = hosts

    def talk() -> Any:
        seen = []
        with backend_of(backend) as server, open_socket(one, socket.SOCK_DGRAM) as sock:
            for host in (one, two, two, one, two):
                sock.sendto(host.encode(), (host, 53))
                echo(server)
                seen.append(sender_of(sock))
            for pair in ((one, two), (two, one)):
                for host in pair:
                    sock.sendto(host.encode(), (host, 53))
                for _ in pair:
                    echo(server)
                seen += [sender_of(sock) for _ in pair]
        return seen

    asked = [one, two, two, one, two, one, two, two, one]
    assert app.call(talk) == [(host.encode(), (host, 53)) for host in asked]


def test_socket_that_disconnects_talks_to_the_next_address(app: Rewriting, hosts: tuple[str, str, str, str]) -> None:
    """connect(A), connect(AF_UNSPEC), sendto(B), and A again."""
    one, two, _, backend = hosts

    def talk() -> Any:
        with backend_of(backend) as server, open_socket(one, socket.SOCK_DGRAM) as sock:
            sock.connect((one, 53))
            sock.send(b"first")
            echo(server)
            seen: list[Any] = [sender_of(sock), peer_of(sock)]
            assert libc.connect(sock.fileno(), NOWHERE) == 0
            seen.append(errno_of(sock.getpeername))
            for host in (two, one, backend):
                sock.sendto(b"next", (host, 53 if host != backend else BACKEND_PORT))
                echo(server)
                seen.append(sender_of(sock))
            return seen

    direct = (b"next", (backend, BACKEND_PORT))
    expected = [(b"first", (one, 53)), (one, 53), errno.ENOTCONN, (b"next", (two, 53)), (b"next", (one, 53)), direct]
    assert app.call(talk) == expected


def test_peer_is_the_truth_when_the_backend_itself_is_connected_to(
    app: Rewriting, hosts: tuple[str, str, str, str]
) -> None:
    """Also where a connect fails in between, by a rule or in the kernel."""
    one, two, denied, backend = hosts

    def talk() -> Any:
        seen: list[Any] = []
        with backend_of(backend) as server, open_socket(one, socket.SOCK_DGRAM) as sock:
            for host, port in ((one, 53), (denied, 53), (backend, BACKEND_PORT), (denied, 53), (two, 53)):
                seen.append((sock.connect_ex((host, port)), peer_of(sock)))
                sock.send(b"?")
                echo(server)
                seen.append(sender_of(sock)[1])
        return seen

    direct = (backend, BACKEND_PORT)
    assert app.call(talk) == [
        (0, (one, 53)),
        (one, 53),
        (errno.EHOSTUNREACH, (one, 53)),
        (one, 53),
        (0, direct),
        direct,
        (errno.EHOSTUNREACH, direct),
        direct,
        (0, (two, 53)),
        (two, 53),
    ]


@pytest.mark.parametrize("protocol", [0, 262], ids=["tcp", "mptcp"])
def test_connection_that_was_refused_tells_nothing_to_the_next(app: Rewriting, protocol: int) -> None:
    """The socket of a failed redirected connect goes to the backend directly, and then elsewhere."""

    def talk() -> Any:
        with open_socket("192.0.2.1", socket.SOCK_STREAM, protocol) as sock:
            refused = sock.connect_ex(("192.0.2.1", 80))
            with listener("127.0.0.1", BACKEND_PORT) as server:
                sock.connect(("127.0.0.1", BACKEND_PORT))
                with server.accept()[0]:
                    return refused, peer_of(sock)

    assert app.call(talk) == (errno.ECONNREFUSED, ("127.0.0.1", BACKEND_PORT))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_dual_stack_client_reaches_ipv4_and_ipv6(app: Rewriting, kind: int) -> None:
    """One IPv6 socket a family: plain send() on the connected one, and the peer in the form that was asked for."""
    asked = [("::ffff:192.0.2.1", "127.0.0.1"), ("2001:db8::1", "::1")]

    def talk() -> Any:
        seen = []
        for host, backend in asked:
            make = listener if kind == socket.SOCK_STREAM else receiver
            with make(backend, BACKEND_PORT) as server, open_socket(host, kind) as sock:
                sock.connect((host, 80))
                assert sock.send(b"hello") == 5
                source = server.accept()[0] if kind == socket.SOCK_STREAM else server
                seen.append((source.recv(10), peer_of(sock)))
                source.close()
        return seen

    assert app.call(talk) == [(b"hello", (host, 80)) for host, _ in asked]


def _type_of_service(family: int) -> tuple[int, int, bytes]:
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", 8)
    return socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", 8)


def _packet_information(family: int) -> tuple[int, int, bytes]:
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.inet_pton(family, "::9") + struct.pack("=I", 0)
    return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I", 0) + socket.inet_aton("127.0.0.9") + bytes(4)


def _segments(_family: int) -> tuple[int, int, bytes]:
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", 4)


MESSAGES = {"tos": _type_of_service, "pktinfo": _packet_information, "segment": _segments}


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("wanted", [*MESSAGES, "all"])
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_control_messages_go_with_the_datagram(app: Rewriting, host: str, wanted: str, connected: bool) -> None:
    """A connected socket that sends them is judged by a hook that sees no address, and keeps its peer."""
    names = list(MESSAGES) if wanted == "all" else [wanted]

    def talk() -> Any:
        with backend_of("::1" if ":" in host else "127.0.0.1") as server, open_socket(host, socket.SOCK_DGRAM) as sock:
            level, told, _ = _type_of_service(server.family)
            server.setsockopt(level, socket.IPV6_RECVTCLASS if ":" in host else socket.IP_RECVTOS, 1)
            if connected:
                sock.connect((host, 53))
            sock.sendmsg(
                [b"12345678"], [MESSAGES[n](sock.family) for n in names], 0, *([] if connected else [(host, 53)])
            )
            parts = []
            for _ in range(2 if "segment" in names else 1):
                data, control, _, client = server.recvmsg(100, 100)
                service = [value[0] for at, kind, value in control if (at, kind) == (level, told)]
                parts.append((data, client[0], service))
            if connected and "pktinfo" in names:  # to an address that is not the socket's: no answer comes back
                return parts, (b"answer", peer_of(sock))
            server.sendto(b"answer", client)
            return parts, sender_of(sock)

    source = {True: ("::9", "::1"), False: ("127.0.0.9", "127.0.0.1")}[":" in host]["pktinfo" not in names]
    service = [8] if "tos" in names else [0]
    datagrams = [b"1234", b"5678"] if "segment" in names else [b"12345678"]
    expected = [(data, source, service) for data in datagrams]
    assert app.call(talk, "::9") == (expected, (b"answer", (host, 53)))


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_answer_that_is_only_peeked_at_is_shown_alike(
    app: Rewriting, hosts: tuple[str, str, str, str], connected: bool
) -> None:
    one, two, _, backend = hosts

    def talk() -> Any:
        with backend_of(backend) as server, open_socket(one, socket.SOCK_DGRAM) as sock:
            if connected:
                sock.connect((one, 53))
            asked = [one] if connected else [one, two]
            for host in asked:
                sock.sendto(host.encode(), (host, 53))
                echo(server)
            return [sender_of(sock, flags)[1] for _ in asked for flags in (socket.MSG_PEEK, socket.MSG_PEEK, 0)]

    asked = [one] if connected else [one, two]
    assert app.call(talk) == [(host, 53) for host in asked for _ in range(3)]


def test_answers_that_are_read_without_their_sender_take_nothing_away(app: Rewriting) -> None:
    """recv() and read() run no hook; a connected socket's peer stays, and it gets the answer."""

    def talk() -> Any:
        with backend_of("127.0.0.1") as server, open_socket("192.0.2.1", socket.SOCK_DGRAM) as sock:
            sock.connect(("192.0.2.1", 53))
            seen = []
            for read in (sock.recv, lambda room: os.read(sock.fileno(), room)):
                sock.send(b"?")
                echo(server)
                seen.append(read(10))
            sock.send(b"!")
            echo(server)
            return seen, sender_of(sock), peer_of(sock)

    assert app.call(talk) == ([b"?", b"?"], (b"!", ("192.0.2.1", 53)), ("192.0.2.1", 53))


def test_ways_of_sending_many_show_one_view(app: Rewriting) -> None:
    """sendmmsg() to two addresses, and io_uring, on one socket."""

    def talk() -> Any:
        with backend_of("127.0.0.1") as server, open_socket("192.0.2.1", socket.SOCK_DGRAM) as sock, Ring() as ring:
            to = [libc.sockaddr(host, 53) for host in ("192.0.2.1", "192.0.2.2")]
            assert libc.sendmmsg(sock.fileno(), [libc.message(b"many", address) for address in to]) == 2
            assert ring.sendmsg(sock.fileno(), libc.message(b"ring", to[1])) == 4
            assert ring.send_to(sock.fileno(), b"ring", to[0]) == 4
            for _ in range(4):
                echo(server)
            return [sender_of(sock)[1][0] for _ in range(4)]

    assert app.call(talk) == ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.1"]


PROXY = 15001


def test_proxy_that_asks_for_the_address_itself_is_not_sent_to_itself(app: Rewriting) -> None:
    """A proxy in a cgroup that no redirect governs learns the address, and its own call goes there."""

    def talk() -> Any:
        with listener("127.0.0.1", PROXY) as proxy, listener("192.0.2.1", 80) as upstream:
            app.tree.child("mesh").enter()
            client = socket.create_connection(("192.0.2.1", 80), 3)
            app.tree.child("proxy").enter()
            inner = proxy.accept()[0]
            raw = inner.getsockopt(socket.SOL_IP, 80, 16)
            asked = socket.inet_ntoa(raw[4:8]), struct.unpack("!H", raw[2:4])[0]
            onward = open_socket(asked[0], socket.SOCK_STREAM)
            onward.connect(asked)
            arrived = upstream.accept()[0]
            with client, inner, onward, arrived:
                arrived.sendall(b"the real one")
                inner.sendall(onward.recv(100))
                return asked, client.recv(100), peer_of(client), peer_of(onward)

    app.tree.child("proxy")
    app.tree.child("mesh")
    place = ("192.0.2.1", 80)
    assert app.call(talk, "192.0.2.1") == (place, b"the real one", place, place)


def test_listener_on_the_redirected_address_is_not_needed_nor_reached(app: Rewriting) -> None:
    """Somebody listens at the virtual address too: the call goes to the backend all the same."""

    def talk() -> Any:
        with (
            listener("192.0.2.1", 80) as wrong,
            listener("127.0.0.1", BACKEND_PORT) as right,
            open_socket("192.0.2.1", socket.SOCK_STREAM) as sock,
        ):
            wrong.setblocking(False)
            sock.connect(("192.0.2.1", 80))
            with right.accept()[0]:
                return errno_of(wrong.accept), peer_of(sock)

    assert app.call(talk, "192.0.2.1") == (errno.EAGAIN, ("192.0.2.1", 80))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "seqpacket"])
def test_unix_socket_whose_other_end_is_gone_shows_what_it_asked_for(
    app: Rewriting, kernel_features: Features, kind: int
) -> None:
    if not kernel_features.unix_hooks:
        pytest.skip(COSTS["unix_hooks"])

    def talk() -> Any:
        with socket.socket(socket.AF_UNIX, kind) as server, socket.socket(socket.AF_UNIX, kind) as sock:
            server.bind("\0given")
            server.listen(1)
            sock.connect("\0asked")
            seen = [sock.getpeername()]
            accepted = server.accept()[0]
            seen.append(sock.getpeername())
            accepted.close()
            return [*seen, sock.getpeername(), json.dumps(sock.recv(1).decode())]

    assert app.call(talk) == [b"\0asked", b"\0asked", b"\0asked", '""']
