# SPDX-License-Identifier: Apache-2.0
"""Flows that a service's redirect made are closed when their backend is left, in real cgroups, by either way."""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.kernel.destroy import close_flows
from cgnetd.kernel.features import Features
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support.enforce import Enforcement
from support.netns import private_netns
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
VIRTUAL = {4: "192.0.2.20", 6: "2001:db8:20::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PORT = 5432
PATIENCE_S = 60.0
KINDS = {
    "udp": (socket.SOCK_DGRAM, 0),
    "tcp": (socket.SOCK_STREAM, 0),
    "mptcp": (socket.SOCK_STREAM, 262),  # IPPROTO_MPTCP
}
POLICY = """
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec:
  addresses: [{virtual}]
  ports: [{{port: 5432, protocol: tcp}}, {{port: 5432, protocol: udp}}]
  backends: [{backends}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: ["/app"]}}
  egress: [{{action: redirect, to: ["service:db"]}}]
"""


@pytest.fixture
def enforcement(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Enforcement]:
    with Enforcement(private_cgroup.path, pin_dir, objects) as made:
        yield made


class Backend:
    """Listens for one kind on the loopback address of one family, and is the only backend of the service."""

    def __init__(self, kind: str, family: int, enforcement: Enforcement) -> None:
        self._kind, self._family = kind, family
        self._enforcement = enforcement
        self.listener = self.open()
        self.listener.bind((LOOPBACK[family], 0))
        if kind != "udp":
            self.listener.listen()
        self.port: int = self.listener.getsockname()[1]
        text = POLICY.format(virtual=f'"{VIRTUAL[family]}"', backends=self._backend())
        result = parse([Source("a.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
        assert result.policy_set, result.problems
        self._image = compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)
        enforcement.load(self._image)

    def _backend(self) -> str:
        return f'{{address: "{LOOPBACK[self._family]}", port: {self.port}}}'

    def open(self) -> socket.socket:
        family = socket.AF_INET6 if self._family == 6 else socket.AF_INET
        return socket.socket(family, *KINDS[self._kind])

    def close_flows(self, objects: Path, offered: Features) -> int:
        return close_flows(
            self._enforcement.store,
            objects,
            offered,
            family=self._family,
            address=int(ipaddress.ip_address(LOOPBACK[self._family])),
            port=self.port,
            service_key=self._image.live.services[0].key,
            protocol=socket.IPPROTO_UDP if self._kind == "udp" else socket.IPPROTO_TCP,
        )


Close = Callable[[Backend], int]


@pytest.fixture
def app(private_cgroup: PrivateCgroup) -> PrivateCgroup:
    """The cgroup that is redirected."""
    return private_cgroup.child("app")


@pytest.fixture
def close(objects: Path, offered: Features) -> Close:
    return lambda backend: backend.close_flows(objects, offered)


@pytest.fixture(params=["iterator", "sock_diag"])
def offered(request: pytest.FixtureRequest, kernel_features: Features) -> Features:
    """Both ways to close flows, one without the other."""
    if request.param == "iterator" and not kernel_features.sock_destroy:
        pytest.skip("no bpf_sock_destroy (Linux 6.5)")
    return dataclasses.replace(kernel_features, sock_destroy=request.param == "iterator")


def error_of(flow: socket.socket) -> int:
    """What whoever waits on the socket is told; 0: it goes on."""
    return flow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_redirected_flow_is_closed_and_the_direct_one_is_not(
    enforcement: Enforcement, app: PrivateCgroup, close: Close, kind: str, family: int
) -> None:
    backend = Backend(kind, family, enforcement)

    def scenario() -> tuple[str, int, tuple[int, int]]:
        with backend.open() as redirected, backend.open() as direct:
            redirected.connect((VIRTUAL[family], PORT))
            direct.connect((LOOPBACK[family], backend.port))
            shown = redirected.getpeername()[0]
            return shown, close(backend), (error_of(redirected), error_of(direct))

    with backend.listener:
        assert app.call(scenario) == (VIRTUAL[family], 1, (errno.ECONNABORTED, 0))


@pytest.mark.parametrize("family", [4, 6])
def test_mptcp_flow_ends_when_the_kernel_gives_up_waiting_for_another_path(
    enforcement: Enforcement, app: PrivateCgroup, close: Close, family: int
) -> None:
    """No kernel lets MPTCP sockets be ended from outside: their paths are, and net.mptcp.close_timeout later they."""

    def scenario() -> tuple[int, int]:
        with backend.open() as redirected, select.epoll() as watched:
            redirected.connect((VIRTUAL[family], PORT))
            closed = close(backend)
            watched.register(redirected, select.EPOLLHUP)
            events = [event for _, event in watched.poll(PATIENCE_S)]
            return closed, bool(events and events[0] & select.EPOLLHUP)

    with private_netns() as place:
        place.call(lambda: impatient("1"))
        backend = place.call(lambda: Backend("mptcp", family, enforcement))
        with backend.listener:
            assert place.call(lambda: app.call(scenario)) == (1, True)


def impatient(seconds: str) -> None:
    path = Path("/proc/sys/net/mptcp/close_timeout")  # of the thread's network namespace
    if not path.exists():
        pytest.skip("no net.mptcp.close_timeout (Linux 6.8)")
    path.write_text(seconds)
