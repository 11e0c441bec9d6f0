# SPDX-License-Identifier: Apache-2.0
"""getsockopt() beside and against our answer to SO_ORIGINAL_DST: buffers of any size, other options, other sockets."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.rewriting import HEAD, Rewriting, listener, open_socket, rewriting

POLICY = (
    HEAD
    + """\
  egress: [{action: redirect, to: [192.0.2.1, "2001:db8::1"], redirect: {to: ["127.0.0.1:8080", "[::1]:8080"]}}]
"""
)
SO_ORIGINAL_DST = 80  # IP6T_SO_ORIGINAL_DST too
TCP_INFO, TCP_ZEROCOPY_RECEIVE, TCP_MAXSEG = 11, 35, 2
PAGE = 4096
GUARD = 0xA5
_libc = ctypes.CDLL(None, use_errno=True)

V4 = (
    socket.SOL_IP,
    struct.pack("=H", socket.AF_INET) + struct.pack("!H", 443) + socket.inet_aton("192.0.2.1") + bytes(8),
)
V6 = (
    socket.IPPROTO_IPV6,
    struct.pack("=H", socket.AF_INET6)
    + struct.pack("!H", 443)
    + bytes(4)
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + bytes(4),
)
HOSTS = {socket.SOL_IP: ("192.0.2.1", "127.0.0.1"), socket.IPPROTO_IPV6: ("2001:db8::1", "::1")}


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


def ask(sock: socket.socket, level: int, option: int, length: int, room: int | None = None) -> tuple[int, int, bytes]:
    """Result or minus errno, the length that came back, and the `room` bytes (none: no buffer at all) afterwards."""
    buffer = ctypes.create_string_buffer(bytes([GUARD]) * (room or 0), room or 1)
    size = ctypes.c_uint32(length & 0xFFFFFFFF)
    place = ctypes.addressof(buffer) if room is not None else None
    result = _libc.getsockopt(sock.fileno(), level, option, ctypes.c_void_p(place), ctypes.byref(size))
    return (result if result >= 0 else -ctypes.get_errno()), size.value, buffer.raw[: room or 0]


def redirected(app: Rewriting, level: int, look: Callable[[socket.socket, socket.socket], Any]) -> Any:
    """What `look` returns of the accepted and the connecting socket of a redirected connection."""
    host, backend = HOSTS[level]

    def talk() -> Any:
        with listener(backend, 8080) as server, open_socket(host, socket.SOCK_STREAM) as client:
            client.connect((host, 443))
            with server.accept()[0] as accepted:
                return look(accepted, client)

    return app.call(talk)


@pytest.mark.parametrize(("level", "address"), [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("more", [0, 1, 100, PAGE, 1 << 20], ids=["exact", "byte", "some", "page", "huge"])
def test_answer_fills_the_front_of_any_larger_buffer(app: Rewriting, level: int, address: bytes, more: int) -> None:
    room = len(address) + more
    found = redirected(app, level, lambda accepted, _: ask(accepted, level, SO_ORIGINAL_DST, room, room))
    assert found[:2] == (0, len(address))
    assert found[2] == address + bytes([GUARD]) * more


@pytest.mark.parametrize(("level", "address"), [V4, V6], ids=["v4", "v6"])
def test_length_that_lies_about_the_buffer_writes_no_more_than_the_address(
    app: Rewriting, level: int, address: bytes
) -> None:
    """INT_MAX, with room for little more than the address."""
    room = len(address) + 64
    found = redirected(app, level, lambda accepted, _: ask(accepted, level, SO_ORIGINAL_DST, 0x7FFFFFFF, room))
    assert found == (0, len(address), address + bytes([GUARD]) * 64)


@pytest.mark.parametrize(("level", "address"), [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("missing", [1, 8, 0], ids=["byte", "half", "all"])
def test_short_buffer_gets_an_error_and_is_left_alone(app: Rewriting, level: int, address: bytes, missing: int) -> None:
    length = len(address) - missing if missing else 0

    def look(accepted: socket.socket, _client: socket.socket) -> Any:
        return ask(accepted, level, SO_ORIGINAL_DST, length, len(address))

    result, _, buffer = redirected(app, level, look)
    assert result in (-errno.EINVAL, -errno.ENOPROTOOPT, -errno.ENOENT, -errno.EOPNOTSUPP)
    assert buffer == bytes([GUARD]) * len(address)


@pytest.mark.parametrize(("level", "address"), [V4, V6], ids=["v4", "v6"])
def test_negative_length_is_an_error(app: Rewriting, level: int, address: bytes) -> None:
    found = redirected(app, level, lambda accepted, _: ask(accepted, level, SO_ORIGINAL_DST, -1, len(address)))
    assert found[0] < 0
    assert found[2] == bytes([GUARD]) * len(address)


@pytest.mark.parametrize(("level", "address"), [V4, V6], ids=["v4", "v6"])
def test_null_is_given_the_length_alone(app: Rewriting, level: int, address: bytes) -> None:
    """The kernel passes over a buffer that is not there, whatever answered; no program sees whether there is one."""
    found = redirected(app, level, lambda accepted, _: ask(accepted, level, SO_ORIGINAL_DST, len(address)))
    assert found[:2] == (0, len(address))


@pytest.mark.parametrize("level", HOSTS, ids=["v4", "v6"])
def test_client_and_listener_get_the_kernels_own_answer(app: Rewriting, level: int) -> None:
    found = redirected(app, level, lambda _, client: ask(client, level, SO_ORIGINAL_DST, 28, 28))
    assert found[0] < 0
    assert found[2] == bytes([GUARD]) * 28


def _others(sock: socket.socket) -> list[tuple[int, int]]:
    """What options beside ours answer: small, larger than a page, misused."""
    answers = [
        ask(sock, socket.SOL_SOCKET, socket.SO_TYPE, 4, 4),
        ask(sock, socket.SOL_SOCKET, SO_ORIGINAL_DST, 16, 16),
        ask(sock, socket.IPPROTO_TCP, TCP_MAXSEG, 2, 4),
        ask(sock, socket.IPPROTO_TCP, TCP_INFO, 2 * PAGE, 2 * PAGE),
        ask(sock, socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, -1, 64),
        ask(sock, socket.IPPROTO_TCP, SO_ORIGINAL_DST, 16, 16),
        ask(sock, socket.SOL_IP, socket.IP_TTL, 2 * PAGE, 2 * PAGE),
        ask(sock, socket.SOL_IP, 81, 16, 16),
        ask(sock, 12345, SO_ORIGINAL_DST, 16, 16),
        ask(sock, socket.SOL_IP, 64, 2 * PAGE, 2 * PAGE),
    ]
    return [(result, length) for result, length, _ in answers]


def test_other_options_answer_as_without_us(app: Rewriting) -> None:
    """On an accepted socket that has an original destination, and on one of a cgroup where nothing runs."""

    def plain() -> Any:
        with listener("127.0.0.1", 0) as server, open_socket("127.0.0.1", socket.SOCK_STREAM) as client:
            client.connect(server.getsockname())
            with server.accept()[0] as accepted:
                return _others(accepted)

    assert redirected(app, socket.SOL_IP, lambda accepted, _: _others(accepted)) == plain()


def test_udp_has_no_original_destination(app: Rewriting) -> None:
    def look() -> Any:
        with open_socket("192.0.2.1", socket.SOCK_DGRAM) as sock:
            sock.connect(("192.0.2.1", 443))
            return ask(sock, socket.SOL_IP, SO_ORIGINAL_DST, 16, 16)[0]

    assert app.call(look) < 0
