# SPDX-License-Identifier: Apache-2.0
"""Congestion control, initial window and initial retransmission timeout of TCP connections, by the policies' `tcp`."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import libc
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

USUAL, OTHER = "reno", "cubic"  # what every network namespace may have as its default, and what most kernels have
WINDOW = 27
RTO_MS = 140
_RTO_US = struct.Struct("=8xI")  # of struct tcp_info
_RETRANSMITS = struct.Struct("=2xB")
_WINDOW = struct.Struct("=80xI")

POLICIES = f"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: tuned}}
spec:
  subject: {{cgroups: ["/tuned", "/both"]}}
  tcp: {{congestion: {OTHER}, initialWindow: {WINDOW}, initialRtoMs: {RTO_MS}}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: partly}}
spec:
  subject: {{cgroups: ["/both"]}}
  priority: 1
  tcp: {{initialWindow: 33}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: tried}}
spec:
  subject: {{cgroups: ["/tuned", "/tried"]}}
  priority: 0
  mode: audit
  tcp: {{initialWindow: 44, congestion: {OTHER}}}
"""


class Tuned(NamedTuple):
    congestion: str
    window: int


@pytest.fixture
def tree(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[PrivateCgroup]:
    """The policies in force."""
    for name in ("tuned", "both", "tried", "free"):
        private_cgroup.child(name)
    result = parse([Source("tcp.yaml", POLICIES.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    with Enforcement(private_cgroup.path, pin_dir, objects) as enforcement:
        enforcement.load(compile_image(result.policy_set, default_action=Action.ALLOW, generation=1), ["sock_ops"])
        yield private_cgroup


def congestion(made: socket.socket) -> str:
    return made.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def info(made: socket.socket, field: struct.Struct) -> int:
    return int(field.unpack_from(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192))[0])


def tuned(made: socket.socket) -> Tuned:
    return Tuned(congestion(made), info(made, _WINDOW))


class Address(NamedTuple):
    """Where a server listens, and where a client of `family` reaches it."""

    listen: str
    connect: str
    family: socket.AddressFamily


ADDRESSES = [
    pytest.param(Address("127.0.0.1", "127.0.0.1", socket.AF_INET), id="v4"),
    pytest.param(Address("::1", "::1", socket.AF_INET6), id="v6"),
    pytest.param(Address("::", "::ffff:127.0.0.1", socket.AF_INET6), id="mapped"),
]


def listen(at: Address) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in at.listen else socket.AF_INET)
    made.bind((at.listen, 0))
    made.listen(0)
    return made


def isolate(*links: str) -> None:
    """Into a network namespace of its own, where the congestion control is the usual one."""
    libc.unshare(libc.CLONE_NEWNET)
    subprocess.run(["ip", "-batch", "-"], input="\n".join(("link set lo up", *links)), text=True, check=True)
    Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(USUAL)


def connected(at: Address, server_in: PrivateCgroup, client_in: PrivateCgroup) -> tuple[Tuned, Tuned]:
    """What a client made in one cgroup got, and the socket that a listener made in another one accepted."""

    def call() -> tuple[Tuned, Tuned]:
        isolate()
        with listen(at) as server:
            client_in.enter()
            with socket.socket(at.family) as client:
                client.connect((at.connect, server.getsockname()[1]))
                with server.accept()[0] as answer:
                    return tuned(client), tuned(answer)

    found: tuple[Tuned, Tuned] = server_in.call(call)
    return found


@pytest.mark.parametrize("at", ADDRESSES)
def test_congestion_and_window_are_the_policys_on_the_side_that_it_governs(tree: PrivateCgroup, at: Address) -> None:
    free, governed = tree.child("free"), tree.child("tuned")
    plain, other = connected(at, free, free)
    assert plain == other
    assert plain.congestion == USUAL
    assert plain.window != WINDOW
    assert connected(at, governed, free) == (plain, Tuned(OTHER, WINDOW))
    assert connected(at, free, governed) == (Tuned(OTHER, WINDOW), plain)


def test_each_setting_is_that_of_the_first_enforcing_policy_that_has_it(tree: PrivateCgroup) -> None:
    at = Address("127.0.0.1", "127.0.0.1", socket.AF_INET)
    both, tried, free = map(tree.child, ("both", "tried", "free"))
    assert connected(at, both, both) == (Tuned(OTHER, 33), Tuned(OTHER, 33))
    assert connected(at, tried, tried) == connected(at, free, free)


def rto_of_first_packet(at: Address) -> int:
    """Of a client whose first packet nobody answers, in milliseconds."""
    isolate()
    with listen(at) as server:
        port = server.getsockname()[1]
        with socket.socket(at.family) as full, socket.socket(at.family) as client:
            full.connect((at.connect, port))  # all that the listener has room for
            client.setblocking(False)
            client.connect_ex((at.connect, port))
            told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            # Older kernels double it each time that they repeat the packet, which a slow host may have had them do.
            return int(_RTO_US.unpack_from(told)[0]) // 1000 >> _RETRANSMITS.unpack_from(told)[0]


@pytest.mark.parametrize("at", ADDRESSES)
def test_first_packet_of_client_is_repeated_after_the_policys_timeout(tree: PrivateCgroup, at: Address) -> None:
    found = {name: tree.child(name).call(lambda: rto_of_first_packet(at)) for name in ("tuned", "tried", "free")}
    assert RTO_MS <= found["tuned"] < RTO_MS + 10
    assert found["tried"] == found["free"] >= 900


LINKS = (
    "link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02",
    "addr add 10.9.0.1/24 dev near",
    "link set near up",
    "link set far up",
    "neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev near",
)
PORT = 80
_ETHERNET = bytes.fromhex("020000000001 020000000002 0800")
_SYN_ACK = 0x12
_SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>
_TIME = struct.Struct("=qq")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def syn() -> bytes:
    """A frame with the first packet of a connection from 10.9.0.2 to PORT at 10.9.0.1."""
    addresses = socket.inet_aton("10.9.0.2") + socket.inet_aton("10.9.0.1")
    tcp = struct.pack("!HHIIBBHHH", 4000, PORT, 1, 0, 0x50, 0x02, 8192, 0, 0)
    pseudo = addresses + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    return _ETHERNET + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def gap_between_answers() -> float:
    """Seconds from the first answer of a listener of this cgroup to its second one, to a client that is silent."""
    isolate(*LINKS)
    every_ip_packet = socket.htons(0x0800)
    with socket.socket() as server, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every_ip_packet) as far:
        server.bind(("10.9.0.1", PORT))
        server.listen()
        far.bind(("far", 0x0800))
        far.settimeout(10)
        far.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # this process may be late, the kernel is not
        far.send(syn())
        seen: list[float] = []
        while len(seen) < 2:
            frame, [(_, _, when)], _, _ = far.recvmsg(2048, socket.CMSG_SPACE(_TIME.size))
            if frame[12:14] == _ETHERNET[12:] and frame[47] == _SYN_ACK:
                seconds, nanoseconds = _TIME.unpack(when)
                seen.append(seconds + nanoseconds / 1e9)
        return seen[1] - seen[0]


def test_answer_of_server_is_repeated_after_the_policys_timeout(tree: PrivateCgroup) -> None:
    """While there is only a request, its listener's cgroup counts. The time begins before the first answer is sent."""
    assert RTO_MS / 1000 / 2 < tree.child("tuned").call(gap_between_answers) < 0.8
    assert tree.child("free").call(gap_between_answers) > 0.8
