# SPDX-License-Identifier: Apache-2.0
"""Which backend of a service a call goes to: by weight, by what the cgroup had before, none if none is alive."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.datapath import abi
from support.rewriting import HEAD, Rewriting, errno_of, open_socket, receiver, rewriting

SERVICE = """\
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: {name}}}
spec:
  addresses: [{address}, "{address6}"]
  ports: [{{port: 53, protocol: udp}}, {{port: 53, protocol: tcp}}]
  backends: [{backends}]
  {extra}
"""
VIP = ("192.0.2.20", 53)
CALLS = 400


def policy(backends: str, extra: str = "") -> str:
    rules = (
        HEAD.replace("[/app]", "[/app, '/app/*']") + '  egress: [{name: all, action: redirect, to: ["service:db"]}]\n'
    )
    backends6 = '{address: "::1", port: 5353}'
    return rules + SERVICE.format(
        name="db", address=VIP[0], address6="2001:db8:20::1", backends=f"{backends}, {backends6}", extra=extra
    )


THREE = "{address: 127.0.0.11, port: 5353}, {address: 127.0.0.12, weight: 2}, {address: 127.0.0.13, weight: 5}"
STICKY = "balance: sticky"
STICKY_VALUE = struct.Struct("=QQII")  # struct cgn_sticky_value: backend, expires_ns, index


@pytest.fixture(scope="module")
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.tree.child("app/one")
        made.tree.child("app/two")
        yield made


@pytest.fixture(autouse=True)
def _no_old_choices(app: Rewriting) -> None:
    app.records()
    sticky = app.enforcement.store.maps["sticky"]
    for key in list(sticky.keys()):
        sticky.delete(key)


def set_alive(app: Rewriting, alive: set[int]) -> None:
    """Of the IPv4 backends, by number."""
    live = app.enforcement.image.live
    cells = live.cells(device_index={}, present=(), alive=lambda _name, _family, number: number in alive)
    with app.enforcement.live() as table:
        table.write(cells)


def chosen(app: Rewriting, cgroup: str = "app", calls: int = CALLS) -> Counter[tuple[str, int]]:
    """Where so many sockets were connected to; nobody needs to listen."""

    def connect() -> Any:
        for _ in range(calls):
            with open_socket(VIP[0], socket.SOCK_DGRAM) as sock:
                sock.connect(VIP)
                assert sock.getpeername() == VIP

    app.records()
    app.tree.child(cgroup).call(connect)
    return Counter((record.new_address_text, record.new_port) for record in app.records())


def with_log(text: str) -> str:
    return text.replace('to: ["service:db"]', 'to: ["service:db"], log: true')


def test_choice_is_in_proportion_to_the_weights(app: Rewriting) -> None:
    app.load(with_log(policy(THREE)))
    found = chosen(app)
    assert set(found) == {("127.0.0.11", 5353), ("127.0.0.12", 53), ("127.0.0.13", 53)}
    assert [found[place] for place in sorted(found)] == pytest.approx([50, 100, 250], abs=60)


def test_dead_backend_is_left_at_once(app: Rewriting) -> None:
    app.load(with_log(policy(THREE)))
    set_alive(app, {0, 1})
    assert set(chosen(app)) == {("127.0.0.11", 5353), ("127.0.0.12", 53)}
    set_alive(app, {1})
    assert set(chosen(app)) == {("127.0.0.12", 53)}


@pytest.mark.parametrize(("extra", "expected"), [("", errno.ECONNREFUSED), ("errno: EHOSTUNREACH", errno.EHOSTUNREACH)])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_backend_alive_is_told(app: Rewriting, extra: str, expected: int, kind: int) -> None:
    app.load(policy(THREE, extra))
    set_alive(app, set())

    def call() -> Any:
        with open_socket(VIP[0], kind) as sock, open_socket(VIP[0], socket.SOCK_DGRAM) as other:
            return sock.connect_ex(VIP), errno_of(lambda: other.sendto(b"question", VIP))

    assert app.call(call) == (expected, expected)
    for record in app.records():
        assert (record.denied, record.errno, record.reason) == (True, expected, abi.REASON_NO_BACKEND)
        assert app.enforcement.image.index.refs[record.rule_id].rule.startswith("all")
    assert sum(app.count(ref.rule) for ref in app.enforcement.image.index.refs if ref.rule.startswith("all")) == 2


def test_sticky_cgroup_keeps_its_backend(app: Rewriting) -> None:
    """Each one its own, over a reload that moves it, until it is dead."""
    app.load(with_log(policy(THREE, STICKY)))
    set_alive(app, {2})
    assert set(chosen(app, "app/one", 1)) == {("127.0.0.13", 53)}
    set_alive(app, {0, 1, 2})
    assert set(chosen(app, "app/one")) == {("127.0.0.13", 53)}
    set_alive(app, {1})
    assert set(chosen(app, "app/two", 1)) == {("127.0.0.12", 53)}
    set_alive(app, {0, 1, 2})
    assert set(chosen(app, "app/two")) == {("127.0.0.12", 53)}
    app.load(with_log(policy("{address: 127.0.0.1}, {address: 127.0.0.10}, " + THREE, STICKY)))
    assert set(chosen(app, "app/one")) == {("127.0.0.13", 53)}
    set_alive(app, {0, 1})
    (moved,) = chosen(app, "app/one", 20)
    set_alive(app, {0, 1, 2, 3, 4})
    assert set(chosen(app, "app/one")) == {moved} <= {("127.0.0.1", 53), ("127.0.0.10", 53)}
    assert set(chosen(app, "app/two")) == {("127.0.0.12", 53)}


def test_sticky_choice_expires(app: Rewriting) -> None:
    """It is as if the time had passed: the moment it ends is set to the past."""
    app.load(with_log(policy(THREE, STICKY)))
    found: Counter[tuple[str, int]] = Counter()
    for _ in range(30):
        found += chosen(app, "app/one", 1)
        sticky = app.enforcement.store.maps["sticky"]
        for key in list(sticky.keys()):
            backend, _, index, _ = STICKY_VALUE.unpack(sticky.lookup(key) or b"")
            sticky.update(key, STICKY_VALUE.pack(backend, 1, index, 0))
    assert len(found) > 1


def answered(server: socket.socket) -> bool:
    return errno_of(lambda: server.sendto(*server.recvfrom(100))) == 0


def test_datagrams_of_one_socket_are_balanced_one_by_one(app: Rewriting) -> None:
    """And each answer comes from the virtual address."""
    app.load(policy("{address: 127.0.0.11}, {address: 127.0.0.12}"))

    def talk() -> Any:
        with (
            receiver("127.0.0.11", 53) as one,
            receiver("127.0.0.12", 53) as two,
            open_socket(VIP[0], socket.SOCK_DGRAM) as sock,
        ):
            for server in (one, two):
                server.setblocking(False)
            seen = set()
            for _ in range(60):
                sock.sendto(b"question", VIP)
                for server in (one, two):
                    if answered(server):
                        seen.add(server.getsockname()[0])
                assert sock.recvfrom(100)[1] == VIP
            return seen

    assert app.call(talk) == {"127.0.0.11", "127.0.0.12"}
