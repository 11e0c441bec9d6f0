# SPDX-License-Identifier: Apache-2.0
"""Very many sockets: what is kept for rewriting goes with them, and a rule's source runs out of no ports."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from support.governed import eventually
from support.growth import Census, census
from support.rewriting import HEAD, Rewriting, rewriting

POLICY = (
    HEAD
    + """\
  egress:
    - {name: one, action: redirect, to: [192.0.2.1], redirect: {to: "127.0.0.1:4444"}, source: {address: 127.0.0.4}}
    - {name: two, action: redirect, to: [192.0.2.2], redirect: {to: "127.0.0.1:4445"}, source: {address: 127.0.0.4}}
    - {name: three, action: redirect, to: [192.0.2.6], redirect: {to: "127.0.0.1:4447"}, source: {address: 127.0.0.4}}
    - {name: six, action: redirect, to: ["2001:db8::1"], redirect: {to: "[::1]:4444"}}
    - {name: shut, action: redirect, to: [192.0.2.3], redirect: {to: "127.0.0.1:1"}}
    - {name: full, action: redirect, to: [192.0.2.4], redirect: {to: "127.0.0.1:4446"}}
    - {name: db, action: redirect, to: ["service:db"]}
  bind:
    - {name: moved, action: rewrite, addresses: [192.0.2.9], rewrite: {address: 127.0.0.1}}
---
apiVersion: cgnetd/v1
kind: Service
metadata: {name: db}
spec: {addresses: [192.0.2.5], ports: [{port: 53, protocol: udp}], backends: [{address: 127.0.0.1}], balance: sticky}
"""
)
LINGER = struct.pack("ii", 1, 0)
STAY = ("labels", "sticky")
ABORTED, FAST_S = 100_000, 120.0


@pytest.fixture
def app(objects: Path) -> Iterator[Rewriting]:
    with rewriting(objects) as made:
        made.load(POLICY)
        yield made


@pytest.fixture
def counted(app: Rewriting, compile_bpf: Callable[[str], Path]) -> Iterator[Census]:
    with census(app.enforcement.store, compile_bpf("storage")) as found:
        yield found


def listen(port: int, backlog: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind(("127.0.0.1", port))
    made.listen(backlog)
    return made


def tcp() -> socket.socket:
    """Aborted when it is closed."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    return made


def connected_udp(count: int) -> None:
    for number in range(count):
        host = "2001:db8::1" if number % 4 == 0 else "192.0.2.1" if number % 2 else "192.0.2.5"
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.connect((host, 53))


def unconnected_udp(count: int) -> None:
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(b"?", ("192.0.2.5", 53))


def bound_udp(count: int) -> None:
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.bind(("192.0.2.9", 5000))


def refused(count: int) -> None:
    """By RST."""
    for _ in range(count):
        with tcp() as made:
            assert made.connect_ex(("192.0.2.3", 80)) == errno.ECONNREFUSED


def unanswered(count: int) -> None:
    """The listener's queue is full: nobody answers the SYN, and the program gives up."""
    waiting = []
    with listen(4446, 0):
        for _ in range(count):
            made = tcp()
            made.setblocking(False)
            waiting.append(made)
            assert made.connect_ex(("192.0.2.4", 80)) == errno.EINPROGRESS
            if len(waiting) > 16:
                waiting.pop(0).close()
        for made in waiting:
            made.close()


def not_accepted(count: int) -> None:
    """Aborted while it waits to be accepted."""
    with listen(4445, 128) as server:
        server.setblocking(False)
        for number in range(count):
            with tcp() as made:
                made.connect(("192.0.2.2", 80))
            if number % 64 == 63:
                drain(server)


def drain(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return
        except ConnectionError:
            continue


def accepted(count: int) -> None:
    """Aborted by either side."""
    with listen(4444, 16) as server:
        for number in range(count):
            made = tcp()
            made.connect(("192.0.2.1", 80))
            other = server.accept()[0]
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            for one in (made, other) if number % 2 else (other, made):
                one.close()


WORKS = {connected_udp: 35_000, unconnected_udp: 20_000, bound_udp: 10_000, refused: 15_000, unanswered: 3_000}
WORKS |= {not_accepted: 8_000, accepted: 9_000}


def test_no_map_grows_with_sockets_that_are_closed_and_aborted(app: Rewriting, counted: Census) -> None:
    assert sum(WORKS.values()) == ABORTED

    def work() -> float:
        begun = time.monotonic()
        for one, count in WORKS.items():
            one(count)
        return time.monotonic() - begun

    def is_empty() -> bool:
        """The kernel frees what is kept with sockets in its own time."""
        return not any(count for name, count in counted.entries().items() if name not in STAY)

    app.call(lambda: [one(20) for one in WORKS])  # what there is once for a cgroup and a service, is there now
    eventually(is_empty, "nothing left of the first ones")
    before = counted.entries()
    took = app.call(work)
    eventually(is_empty, "nothing left")
    assert counted.entries() == before
    with_sockets = {"peers", "talks", "binds", "origins", "stamps", "names", "handoffs"}
    assert before.keys() == {*STAY, *with_sockets, "flows", "quotas"}
    assert took < FAST_S


def test_entries_are_seen_while_sockets_are_open(app: Rewriting, counted: Census) -> None:
    """The count above would see what stays."""

    def hold() -> Any:
        with (
            listen(4444, 16) as server,
            tcp() as made,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loose,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound,
        ):
            made.connect(("192.0.2.1", 80))
            loose.sendto(b"?", ("192.0.2.5", 53))
            bound.bind(("192.0.2.9", 5000))
            with server.accept()[0]:
                return counted.entries()

    found = app.call(hold)
    wanted = ("peers", "talks", "binds", "handoffs", "sticky")
    assert {name: found[name] for name in wanted} == dict.fromkeys(wanted, 1)


# Ports are looked for among every other one of the range first: more flows than those make the kernel slow.
ONE_DESTINATION = ((1024, 65535), [("192.0.2.1", 10_000)] * 3)
THREE_DESTINATIONS = ((20_000, 21_999), [("192.0.2.1", 900), ("192.0.2.2", 900), ("192.0.2.6", 900)])


@pytest.mark.parametrize(("ports", "shares"), [ONE_DESTINATION, THREE_DESTINATIONS], ids=["one", "three"])
def test_source_of_many_flows_runs_out_of_no_ports(
    app: Rewriting, ports: tuple[int, int], shares: list[tuple[str, int]]
) -> None:
    """30,000 from one address to one destination; and more than there are ports to several, which share them."""
    count = sum(share for _, share in shares)

    def many() -> Any:
        own = (("ipv4/ip_local_port_range", f"{ports[0]} {ports[1]}"), ("core/somaxconn", "40000"))
        for name, value in own:
            Path("/proc/sys/net", name).write_text(value)
        begun = time.monotonic()
        with ExitStack() as stack:
            for port in (4444, 4445, 4447):
                stack.enter_context(listen(port, count))
            holders = [stack.enter_context(Holder(*share)) for share in shares]
            sources = Counter(source for holder in holders for source in holder.sources())
            return time.monotonic() - begun, sources

    took, sources = app.call(many)
    destinations = len({host for host, _ in shares})
    assert sum(sources.values()) == count
    assert {address for address, _ in sources} == {"127.0.0.4"}
    assert len(sources) <= ports[1] - ports[0] + 1
    assert max(sources.values()) <= destinations  # each serves a destination once
    assert destinations == 1 or count > ports[1] - ports[0] + 1
    assert took < FAST_S


class Holder:
    """A process that holds `count` connections to a host: one has not enough descriptors for all."""

    def __init__(self, host: str, count: int) -> None:
        self._end, theirs = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            self._end.close()
            try:
                _hold(theirs, host, count)
            finally:
                os._exit(0)
        theirs.close()

    def sources(self) -> list[tuple[str, int]]:
        """Where the connections are from. Comes when all are there."""
        with self._end.makefile("r") as answers:
            return [(host, port) for host, port in json.loads(answers.readline())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.close()
        os.waitpid(self._pid, 0)


def _hold(channel: socket.socket, host: str, count: int) -> None:
    flows = []
    for _ in range(count):
        made = tcp()
        flows.append(made)
        made.connect((host, 80))
    channel.sendall(json.dumps([made.getsockname() for made in flows]).encode() + b"\n")
    channel.recv(1)
