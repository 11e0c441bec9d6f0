# SPDX-License-Identifier: Apache-2.0
"""What a proxy learns of a redirected connection by SO_ORIGINAL_DST, and what is left of it: nothing."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf.batch import lookup_all
from support import libc, sandbox
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

SO_ORIGINAL_DST = 80  # IP6T_SO_ORIGINAL_DST too
IPPROTO_MPTCP = 262
PROXY = 8080
V4, V6 = "192.0.2.10", "2001:db8::10"
_IN, _IN6 = struct.Struct("=H2s4s8x"), struct.Struct("=H2s4x16s4x")

POLICIES = f"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: proxied}}
spec:
  subject: {{cgroups: ["/app"]}}
  egress:
    - action: redirect
      to: [{V4}, "{V6}"]
      protocols: [tcp]
      redirect: {{to: ["127.0.0.1:{PROXY}", "[::1]:{PROXY}"]}}
"""


class Place(NamedTuple):
    enforcement: Enforcement
    app: PrivateCgroup
    proxy: PrivateCgroup

    def handed_over(self) -> int:
        """How many connections wait for the one who accepts, or still live."""
        return len(list(lookup_all(self.enforcement.store.maps["handoffs"])))


@pytest.fixture(scope="module")
def place(objects: Path) -> Iterator[Place]:
    with sandbox.cgroup() as root, sandbox.bpffs_mount() as bpffs:
        app, proxy = root.child("app"), root.child("proxy")
        result = parse([Source("proxied.yaml", POLICIES.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
        assert result.policy_set, result.problems
        with Enforcement(root.path, bpffs / "cgnetd", objects) as enforcement:
            enforcement.load(compile_image(result.policy_set, default_action=Action.ALLOW, generation=1))
            yield Place(enforcement, app, proxy)


def isolate() -> None:
    """Into a network namespace of its own, which has no way to the addresses that are asked for."""
    libc.unshare(libc.CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@contextmanager
def listening(host: str, protocol: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, protocol) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, PROXY))
        made.listen(128)
        yield made


def original(made: socket.socket, level: int) -> tuple[str, int] | int:
    """The answer of one of the two options, or the errno."""
    layout, family = (_IN, socket.AF_INET) if level == socket.SOL_IP else (_IN6, socket.AF_INET6)
    try:
        raw = made.getsockopt(level, SO_ORIGINAL_DST, layout.size)
    except OSError as error:
        return error.errno or -1
    found, port, address = layout.unpack(raw)
    assert found == family
    return str(ipaddress.ip_address(address)), int.from_bytes(port, "big")


Answers = tuple[tuple[str, int] | int, tuple[str, int] | int]


def both(made: socket.socket) -> Answers:
    return original(made, socket.SOL_IP), original(made, socket.IPPROTO_IPV6)


class Client(NamedTuple):
    """Connects to `to`, which listens at `listen` in truth. Either side can be of MPTCP."""

    to: str
    listen: str
    family: socket.AddressFamily = socket.AF_INET
    protocol: int = 0
    server_protocol: int = 0


def accepted(place: Place, client: Client, look: Callable[[socket.socket, socket.socket], object]) -> object:
    """What `look` returns of the client's socket and the accepted one."""

    def call() -> object:
        isolate()
        with ExitStack() as stack:
            server = stack.enter_context(listening(client.listen, client.server_protocol))
            place.app.enter()
            made = stack.enter_context(socket.socket(client.family, socket.SOCK_STREAM, client.protocol))
            made.settimeout(5)
            made.connect((client.to, 443))
            return look(made, stack.enter_context(server.accept()[0]))

    return place.proxy.call(call)


def test_ipv4_connection_tells_what_was_asked_for(place: Place) -> None:
    found = accepted(place, Client(V4, "127.0.0.1"), lambda _, server: both(server))
    assert found == ((V4, 443), errno.EOPNOTSUPP)


def test_ipv6_connection_tells_what_was_asked_for(place: Place) -> None:
    found = accepted(place, Client(V6, "::1", socket.AF_INET6), lambda _, server: original(server, socket.IPPROTO_IPV6))
    assert found == (V6, 443)


@pytest.mark.parametrize(
    "client",
    [
        Client(f"::ffff:{V4}", "127.0.0.1", socket.AF_INET6),
        Client(f"::ffff:{V4}", "::", socket.AF_INET6),
        Client(V4, "::"),
    ],
    ids=["client", "both", "server"],
)
def test_ipv4_through_ipv6_sockets_tells_the_ipv4_address(place: Place, client: Client) -> None:
    assert accepted(place, client, lambda _, server: original(server, socket.SOL_IP)) == (V4, 443)


def has_mptcp() -> bool:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("client", "server"),
    [(IPPROTO_MPTCP, IPPROTO_MPTCP), (0, IPPROTO_MPTCP), (IPPROTO_MPTCP, 0)],
    ids=["both", "server", "client"],
)
def test_mptcp_connection_tells_what_was_asked_for(place: Place, client: int, server: int) -> None:
    if not has_mptcp():
        pytest.skip("no MPTCP: CONFIG_MPTCP=y, sysctl net.mptcp.enabled=1")
    asked = Client(V4, "127.0.0.1", protocol=client, server_protocol=server)
    assert accepted(place, asked, lambda _, made: original(made, socket.SOL_IP)) == (V4, 443)


def test_short_buffers_and_client_keep_the_kernels_own_answer(place: Place) -> None:
    def look(client: socket.socket, server: socket.socket) -> list[int]:
        return [number_of(server, _IN.size - 1), number_of(client, _IN.size)]

    found = accepted(place, Client(V4, "127.0.0.1"), look)
    assert isinstance(found, list)
    assert all(number in (errno.EINVAL, errno.ENOENT, errno.ENOPROTOOPT) for number in found)


def number_of(made: socket.socket, room: int) -> int:
    """The errno of an answer into a buffer of `room` bytes, 0 if it fits."""
    try:
        made.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, room)
    except OSError as error:
        return error.errno or -1
    return 0


def test_direct_connection_keeps_the_kernels_own_answer(place: Place) -> None:
    def call() -> Answers:
        isolate()
        with (
            listening("127.0.0.1") as server,
            socket.create_connection(("127.0.0.1", PROXY)),
            server.accept()[0] as made,
        ):
            return both(made)

    for cgroup in (place.app, place.proxy):
        assert all(isinstance(answer, int) for answer in cgroup.call(call))


def test_answer_stays_when_the_client_is_gone(place: Place) -> None:
    def look(client: socket.socket, server: socket.socket) -> object:
        client.close()
        assert server.recv(1) == b""
        return original(server, socket.SOL_IP)

    assert accepted(place, Client(V4, "127.0.0.1"), look) == (V4, 443)


def test_socket_that_connects_again_tells_each_connection_its_own(place: Place) -> None:
    turns = [("127.0.0.1", PROXY), (V4, 1), ("127.0.0.1", PROXY), (V4, 3)]

    def call() -> list[object]:
        isolate()
        found: list[object] = []
        with listening("127.0.0.1") as server:
            place.app.enter()
            with socket.socket(socket.AF_INET6) as again:
                for address, port in turns:
                    again.connect((f"::ffff:{address}", port))
                    with server.accept()[0] as made:
                        found.append(original(made, socket.SOL_IP))
                    _disconnect(again)
        return found

    found = [answer if isinstance(answer, tuple) else None for answer in place.proxy.call(call)]
    assert found == [None, (V4, 1), None, (V4, 3)]


def _disconnect(made: socket.socket) -> None:
    assert libc.connect(made.fileno(), struct.pack("=H26x", socket.AF_UNSPEC)) == 0


# -- what is left of it


ROUNDS = 200


def close(made: socket.socket) -> None:
    made.close()


def abort(made: socket.socket) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()


@pytest.mark.parametrize("end", [close, abort])
@pytest.mark.parametrize("client_first", [True, False], ids=["client", "server"])
def test_closed_connections_leave_nothing(
    place: Place, end: Callable[[socket.socket], None], client_first: bool
) -> None:
    def call() -> int:
        isolate()
        with listening("127.0.0.1") as server:
            place.app.enter()
            for _ in range(ROUNDS):
                client = socket.create_connection((V4, 443))
                made = server.accept()[0]
                for one in (client, made) if client_first else (made, client):
                    end(one)
        return place.handed_over()

    assert place.proxy.call(call) == 0


def test_connections_that_nobody_accepts_leave_nothing(place: Place) -> None:
    def call() -> list[int]:
        isolate()
        place.app.enter()
        refused = set()
        for _ in range(ROUNDS):
            with socket.socket() as client:
                refused.add(client.connect_ex((V4, 443)))
        with listening("127.0.0.1") as server:
            waiting = [socket.create_connection((V4, 443)) for _ in range(16)]
            held = place.handed_over()
            server.close()
            for client in waiting:
                client.close()
        return [*refused, held, place.handed_over()]

    assert place.proxy.call(call) == [errno.ECONNREFUSED, 16, 0]


def test_killed_client_leaves_nothing(place: Place) -> None:
    def call() -> None:
        isolate()
        place.app.enter()
        with listening("127.0.0.1"):
            kept = [socket.create_connection((V4, 443)) for _ in range(16)]
            assert place.handed_over() == len(kept)
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="died"):
        place.proxy.call(call)
    assert place.handed_over() == 0
