# SPDX-License-Identifier: Apache-2.0
"""A rewritten bind takes another address or port than the program asked for and sees; it can be privileged."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.calls import MPTCP
from support.rewriting import HEAD, Rewriting, errno_of, family_of, open_socket, rewriting

POLICY = (
    HEAD
    + """\
  bind:
    - {name: guard, action: deny, addresses: [127.0.0.3], errno: EACCES}
    - {name: web, action: rewrite, addresses: ["0.0.0.0", "::"], ports: [80],
       rewrite: {address: [127.0.0.7, "::1"], port: 8080}, privileged: true, log: true}
    - {name: port, action: rewrite, addresses: [127.0.0.1, "::1"], ports: [5353], rewrite: {port: 5454}}
    - {name: address, action: rewrite, addresses: [127.0.0.5], rewrite: {address: 127.0.0.6}}
    - {name: any, action: rewrite, addresses: ["0.0.0.0", "::"], ports: [6060], rewrite: {port: 6161}}
    - {name: four, action: rewrite, addresses: ["0.0.0.0"], ports: [7070], rewrite: {address: 127.0.0.8}}
    - {name: held, action: rewrite, addresses: [127.0.0.9], ports: [80], rewrite: {port: 79}}
    - {name: low, action: allow, addresses: [127.0.0.10], privileged: true}
    - {name: guarded, action: rewrite, addresses: [127.0.0.4], rewrite: {address: 127.0.0.3}}
    - {name: guard4, action: deny, addresses: ["0.0.0.0"], ports: [6464], errno: EACCES}
    - {name: six, action: rewrite, addresses: ["::"], ports: [6363], rewrite: {port: 6464}}
"""
)

Place = tuple[str, int]


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


def name_of(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return host, port


def is_taken(place: Place, kind: int) -> bool:
    """Whether somebody is bound there: a second socket cannot be."""
    with socket.socket(family_of(place[0]), kind) as other:
        if other.family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return errno_of(lambda: other.bind(place)) == errno.EADDRINUSE


CASES = [
    (("0.0.0.0", 80), ("127.0.0.7", 8080)),
    (("127.0.0.1", 5353), ("127.0.0.1", 5454)),
    (("::1", 5353), ("::1", 5454)),
    (("127.0.0.5", 4040), ("127.0.0.6", 4040)),
    (("::ffff:127.0.0.5", 4040), ("127.0.0.6", 4040)),
    (("0.0.0.0", 6060), ("0.0.0.0", 6161)),
    (("::", 6060), ("::", 6161)),
]


@pytest.mark.parametrize(("asked", "actual"), CASES)
@pytest.mark.parametrize(
    ("kind", "protocol"), [(socket.SOCK_STREAM, 0), (socket.SOCK_STREAM, MPTCP), (socket.SOCK_DGRAM, 0)]
)
def test_bind_goes_elsewhere_and_shows_what_was_asked(
    app: Rewriting, asked: Place, actual: Place, kind: int, protocol: int
) -> None:
    def bind() -> Any:
        with open_socket(asked[0], kind, protocol) as sock:
            sock.bind(asked)
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
            return name_of(sock), is_taken(actual, kind)

    assert app.call(bind) == (asked, True)


@pytest.mark.parametrize("protocol", [0, MPTCP])
@pytest.mark.parametrize(
    ("asked", "to", "shown"),
    [
        (("0.0.0.0", 80), ("127.0.0.7", 8080), ("127.0.0.7", 80)),
        (("127.0.0.1", 5353), ("127.0.0.1", 5454), ("127.0.0.1", 5353)),
        (("127.0.0.5", 4040), ("127.0.0.6", 4040), ("127.0.0.5", 4040)),
        (("::", 6060), ("::1", 6161), ("::1", 6060)),
        (("::", 6060), ("127.0.0.1", 6161), ("::ffff:127.0.0.1", 6060)),
    ],
)
def test_accepted_socket_shows_the_port_that_was_asked(
    app: Rewriting, asked: Place, to: Place, shown: Place, protocol: int
) -> None:
    """And of the address what is true: a connection to a socket on all of them is to one."""

    def accept() -> Any:
        with open_socket(asked[0], socket.SOCK_STREAM, protocol) as server:
            server.bind(asked)
            server.listen(1)
            with socket.create_connection(to) as client:
                accepted, peer = server.accept()
                with accepted:
                    return name_of(accepted), peer[1] == client.getsockname()[1]

    assert app.call(accept) == (shown, True)


def test_dual_stack_bind_follows_the_rule_for_ipv4(app: Rewriting) -> None:
    """[::] takes 0.0.0.0 too: the rule for that one decides if none rewrites the other."""

    def bind() -> Any:
        with open_socket("::", socket.SOCK_STREAM) as sock:
            sock.bind(("::", 7070))
            sock.listen(1)
            return (
                name_of(sock),
                is_taken(("127.0.0.8", 7070), socket.SOCK_STREAM),
                is_taken(("::1", 7070), socket.SOCK_STREAM),
            )

    def bind_v6_only() -> Any:
        with open_socket("::", socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::", 7070))
            sock.listen(1)
            return name_of(sock), is_taken(("::1", 7070), socket.SOCK_STREAM)

    assert app.call(bind) == (("::", 7070), True, False)
    assert app.call(bind_v6_only) == (("::", 7070), True)


@pytest.mark.parametrize(
    ("host", "port", "expected"), [("0.0.0.0", 80, 0), ("127.0.0.10", 81, 0), ("127.0.0.9", 80, errno.EACCES)]
)
def test_privilege_is_given_by_the_rule(app: Rewriting, host: str, port: int, expected: int) -> None:
    """A low port needs CAP_NET_BIND_SERVICE, also one that a rule without `privileged` rewrites to."""

    def bind() -> int:
        os.setuid(65534)
        with open_socket(host, socket.SOCK_STREAM) as sock:
            return errno_of(lambda: sock.bind((host, port)))

    assert app.call(bind) == expected


def test_port_left_to_the_kernel_is_shown_as_it_is(app: Rewriting) -> None:
    def bind() -> Any:
        with open_socket("127.0.0.5", socket.SOCK_STREAM) as sock:
            sock.bind(("127.0.0.5", 0))
            sock.listen(1)
            shown = name_of(sock)
            return shown[0], is_taken(("127.0.0.6", shown[1]), socket.SOCK_STREAM)

    assert app.call(bind) == ("127.0.0.5", True)


def test_bind_to_an_address_that_an_earlier_rule_denies_is_denied(app: Rewriting) -> None:
    def bind() -> int:
        with open_socket("127.0.0.4", socket.SOCK_STREAM) as sock:
            return errno_of(lambda: sock.bind(("127.0.0.4", 4040)))

    assert app.call(bind) == errno.EACCES


def test_dual_stack_bind_is_judged_as_both_at_its_new_port(app: Rewriting) -> None:
    """The rule is about [::] alone, but the socket would take the new port on 0.0.0.0 too."""

    def bind(v6_only: int) -> int:
        with open_socket("::", socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
            return errno_of(lambda: sock.bind(("::", 6363)))

    assert app.call(lambda: [bind(0), bind(1)]) == [errno.EACCES, 0]


def test_bind_that_fails_leaves_no_view(app: Rewriting) -> None:
    """The address is taken; the socket is bound elsewhere then."""

    def bind() -> Any:
        with (
            open_socket("127.0.0.1", socket.SOCK_STREAM) as first,
            open_socket("127.0.0.1", socket.SOCK_STREAM) as sock,
        ):
            first.bind(("127.0.0.1", 5454))
            first.listen(1)
            failed = errno_of(lambda: sock.bind(("127.0.0.1", 5353)))
            sock.bind(("127.0.0.1", 5455))
            return failed, name_of(sock)

    assert app.call(bind) == (errno.EADDRINUSE, ("127.0.0.1", 5455))


def test_view_of_a_former_bind_is_taken_back_where_nothing_governs(app: Rewriting) -> None:
    """The policy goes between a bind that fails and one that takes what the first was rewritten to."""

    def bind(reload: Callable[[], None]) -> Any:
        with (
            open_socket("127.0.0.1", socket.SOCK_STREAM) as first,
            open_socket("127.0.0.1", socket.SOCK_STREAM) as sock,
        ):
            first.bind(("127.0.0.1", 5454))
            failed = errno_of(lambda: sock.bind(("127.0.0.1", 5353)))
            reload()
            first.close()
            sock.bind(("127.0.0.1", 5454))
            return failed, name_of(sock)

    try:
        ungoverned = HEAD.replace("/app", "/other") + "  bind: [{action: allow}]\n"
        assert app.call_reloading(bind, ungoverned) == (errno.EADDRINUSE, ("127.0.0.1", 5454))
    finally:
        app.load(POLICY)


def test_event_tells_where_the_bind_went(app: Rewriting) -> None:
    app.records()

    def bind() -> None:
        with open_socket("::", socket.SOCK_STREAM) as sock:
            sock.bind(("::", 80))

    app.call(bind)
    (record,) = app.records()
    assert (record.address_text, record.port, record.rewritten) == ("::", 80, True)
    assert (record.new_address_text, record.new_port) == ("::1", 8080)
