# SPDX-License-Identifier: Apache-2.0
"""Flows to one backend are closed, by either way the kernel offers, and no others are.

What the programs would have noted with a socket is written by hand: which sockets are meant is all that counts here.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from cgnetd.errors import KernelError
from cgnetd.kernel import layout
from cgnetd.kernel.destroy import close_flows
from cgnetd.kernel.diag import SockDiag
from cgnetd.kernel.features import Features
from cgnetd.kernel.netns import OWN
from cgnetd.kernel.store import Store
from support import libc
from support.netns import private_netns
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
DB, OTHER = 0xD8, 0x07  # keys of services
NOWHERE = ("192.0.2.20", 5432)  # what was asked for
FAMILIES = {4: (socket.AF_INET, "127.0.0.1"), 6: (socket.AF_INET6, "::1")}


class Close(Protocol):
    def __call__(
        self, port: int, family: int = 4, *, key: int = DB, tcp: bool = False, netns: tuple[Path, ...] = ...
    ) -> int: ...


@pytest.fixture(params=["iterator", "sock_diag"])
def close(request: pytest.FixtureRequest, store: Store, objects: Path, kernel_features: Features) -> Close:
    """Close the flows to the loopback address, without what the other way needs."""
    if request.param == "iterator" and not kernel_features.sock_destroy:
        pytest.skip("no bpf_sock_destroy (Linux 6.5)")
    offered = dataclasses.replace(kernel_features, sock_destroy=request.param == "iterator")

    def closing(
        port: int, family: int = 4, *, key: int = DB, tcp: bool = False, netns: tuple[Path, ...] = (OWN,)
    ) -> int:
        return close_flows(
            store,
            objects,
            offered,
            family=family,
            address=int(ipaddress.ip_address(FAMILIES[family][1])),
            port=port,
            service_key=key,
            protocol=socket.IPPROTO_TCP if tcp else socket.IPPROTO_UDP,
            netns=netns,
        )

    return closing


class Flows:
    """Sockets of a test, and listeners for them to talk to."""

    def __init__(self, store: Store, stack: ExitStack) -> None:
        self._peers = store.maps["peers"]
        self._stack = stack

    def listener(self, family: int = 4, *, tcp: bool = False) -> int:
        """Its port."""
        kind, address = FAMILIES[family]
        made = self._stack.enter_context(socket.socket(kind, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM))
        made.bind((address, 0))
        if tcp:
            made.listen()
        return int(made.getsockname()[1])

    def connected(self, port: int, family: int = 4, *, tcp: bool = False, mapped: bool = False) -> socket.socket:
        kind, address = FAMILIES[6 if mapped else family]
        made = self._stack.enter_context(socket.socket(kind, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM))
        made.connect(("::ffff:127.0.0.1" if mapped else address, port))
        return made

    def note(self, flow: socket.socket, port: int, family: int = 4, *, key: int = DB) -> socket.socket:
        """As a redirect by a service leaves it."""
        actual = int(ipaddress.ip_address(FAMILIES[family][1]))
        asked = int(ipaddress.ip_address(NOWHERE[0]))
        view = layout.VIEW.pack(0, asked, actual >> 64, actual & (1 << 64) - 1, key, NOWHERE[1], port, family)
        self._peers.update(flow.fileno().to_bytes(4, "little"), view.ljust(layout.PEERS_BYTES, b"\0"))
        return flow

    def redirected(
        self, port: int, family: int = 4, *, key: int = DB, tcp: bool = False, mapped: bool = False
    ) -> socket.socket:
        return self.note(self.connected(port, family, tcp=tcp, mapped=mapped), port, family, key=key)


@pytest.fixture
def flows(store: Store) -> Iterator[Flows]:
    with ExitStack() as stack:
        yield Flows(store, stack)


def ended(flow: socket.socket) -> bool:
    """Whether the kernel has ended it; what the program that has it would see."""
    number = flow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert number in (0, errno.ECONNABORTED)
    return number != 0


def disconnect(flow: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python's sockets cannot say."""
    assert libc.connect(flow.fileno(), struct.pack("=H14x", socket.AF_UNSPEC)) == 0


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(("family", "mapped"), [(4, False), (6, False), (4, True)], ids=["v4", "v6", "mapped"])
def test_flows_to_the_backend_are_closed(close: Close, flows: Flows, tcp: bool, family: int, mapped: bool) -> None:
    port = flows.listener(family, tcp=tcp)
    found = [flows.redirected(port, family, tcp=tcp, mapped=mapped) for _ in range(3)]
    assert close(port, family, tcp=tcp) == 3
    assert [ended(flow) for flow in found] == [True] * 3
    assert close(port, family, tcp=tcp) == 0
    with pytest.raises(OSError, match=r"not connected|Broken pipe|Destination address required"):
        found[0].send(b"x")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_port_zero_stands_for_every_port(close: Close, flows: Flows, tcp: bool) -> None:
    ports = [flows.listener(tcp=tcp) for _ in range(2)]
    meant = [flows.redirected(port, tcp=tcp) for port in ports]
    other = flows.redirected(ports[0], key=OTHER, tcp=tcp)
    assert close(0, tcp=tcp) == 2
    assert ([ended(flow) for flow in meant], ended(other)) == ([True, True], False)
    assert close(0, tcp=tcp) == 0


def test_closed_udp_socket_can_be_connected_again(close: Close, flows: Flows) -> None:
    port = flows.listener()
    flow = flows.redirected(port)
    assert close(port) == 1
    assert ended(flow)
    flow.connect(("127.0.0.1", port))
    assert flow.send(b"x") == 1


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_other_flows_are_left_alone(close: Close, flows: Flows, tcp: bool) -> None:
    port, elsewhere = flows.listener(tcp=tcp), flows.listener(tcp=tcp)
    others = {
        "of another service": flows.redirected(port, key=OTHER, tcp=tcp),
        "of no service": flows.redirected(port, key=0, tcp=tcp),
        "to another backend": flows.redirected(elsewhere, tcp=tcp),
        "connected directly": flows.connected(port, tcp=tcp),
        "noted, but connected elsewhere since": flows.note(flows.connected(elsewhere, tcp=tcp), port),
        "of the other family": flows.redirected(flows.listener(6, tcp=tcp), 6, tcp=tcp),
    }
    meant = flows.redirected(port, tcp=tcp)
    assert close(port, tcp=tcp) == 1
    assert ended(meant)
    assert {what: ended(flow) for what, flow in others.items()} == dict.fromkeys(others, False)


def test_protocols_are_told_apart(close: Close, flows: Flows) -> None:
    port = flows.listener(tcp=True)
    tcp = flows.redirected(port, tcp=True)
    udp = flows.redirected(port)
    assert close(port) == 1
    assert (ended(tcp), ended(udp)) == (False, True)


def test_unconnected_sockets_are_left_alone(close: Close, flows: Flows) -> None:
    port = flows.listener()
    flow = flows.redirected(port)
    disconnect(flow)
    assert close(port) == 0
    assert not ended(flow)
    assert flow.sendto(b"x", ("127.0.0.1", port)) == 1


def test_listener_of_the_backend_is_left_alone(close: Close, flows: Flows) -> None:
    port = flows.listener(tcp=True)
    flows.redirected(port, tcp=True)
    assert close(port, tcp=True) == 1
    assert flows.connected(port, tcp=True).getpeername() == ("127.0.0.1", port)


def test_only_namespaces_asked_for_are_looked_at(close: Close, flows: Flows) -> None:
    with private_netns() as one, private_netns() as other:
        port = one.call(flows.listener)
        inside = one.call(lambda: flows.redirected(port))
        beside = other.call(lambda: flows.redirected(port))
        outside = flows.redirected(port)
        assert close(port, netns=()) == 0
        assert close(port, netns=(one.path, one.path)) == 1
        assert (ended(inside), ended(beside), ended(outside)) == (True, False, False)
        assert close(port, netns=(OWN, one.path, other.path, Path("/proc/4194305/ns/net"))) == 2
        assert (ended(beside), ended(outside)) == (True, True)


def test_many_flows_are_all_closed(close: Close, flows: Flows) -> None:
    """More than fit into one message of the kernel."""
    port = flows.listener()
    found = [flows.redirected(port) for _ in range(700)]
    assert close(port) == len(found)
    assert all(ended(flow) for flow in found)


def test_what_are_no_flows_is_refused(close: Close) -> None:
    with pytest.raises(ValueError, match="no such flows"):
        close(1, key=0)


@pytest.mark.parametrize(("family", "protocol"), [(5, socket.IPPROTO_UDP), (4, socket.IPPROTO_SCTP)])
def test_unknown_kinds_are_refused(
    store: Store, objects: Path, kernel_features: Features, family: int, protocol: int
) -> None:
    with pytest.raises(ValueError, match="no such flows"):
        close_flows(store, objects, kernel_features, family=family, address=1, port=1, service_key=1, protocol=protocol)


@pytest.mark.parametrize(("has_it", "name"), [(True, "destroy"), (False, "peers")])
def test_missing_object_names_the_file(
    store: Store, tmp_path: Path, kernel_features: Features, has_it: bool, name: str
) -> None:
    offered = dataclasses.replace(kernel_features, sock_destroy=has_it)
    with pytest.raises(KernelError, match=rf"{name}\.bpf\.o is missing; build it: make bpf"):
        close_flows(store, tmp_path, offered, family=4, address=1, port=1, service_key=1, protocol=socket.IPPROTO_UDP)


def identity(flow: socket.socket) -> bytes:
    """struct inet_diag_sockid of an IPv4 socket, with the cookie that stands for any (INET_DIAG_NOCOOKIE)."""
    ends = (flow.getsockname(), flow.getpeername())
    ports = b"".join(struct.pack("!H", port) for _, port in ends)
    addresses = b"".join(socket.inet_aton(address).ljust(16, b"\0") for address, _ in ends)
    return ports + addresses + struct.pack("=IQ", 0, 2**64 - 1)


def test_ending_sockets_needs_privilege(flows: Flows, private_cgroup: PrivateCgroup) -> None:
    flow = flows.connected(flows.listener())
    meant = identity(flow)

    def unprivileged() -> bool:
        os.setresuid(65534, 65534, 65534)
        with SockDiag() as diag:
            return diag.destroy(socket.AF_INET, socket.IPPROTO_UDP, meant)

    with pytest.raises(PermissionError, match="sock_diag"):
        private_cgroup.call(unprivileged)
    assert not ended(flow)


def test_socket_is_ended_once(flows: Flows) -> None:
    flow = flows.connected(flows.listener())
    meant = identity(flow)
    with SockDiag() as diag:
        assert diag.destroy(socket.AF_INET, socket.IPPROTO_UDP, meant) is True
        assert ended(flow)
        assert diag.destroy(socket.AF_INET, socket.IPPROTO_UDP, meant) is False


def test_socket_with_another_cookie_is_another(flows: Flows) -> None:
    flow = flows.connected(flows.listener())
    with SockDiag() as diag:
        assert diag.destroy(socket.AF_INET, socket.IPPROTO_UDP, identity(flow)[:-8] + bytes(8)) is False
    assert not ended(flow)
