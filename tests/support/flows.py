# SPDX-License-Identifier: Apache-2.0
"""What the kernel's hooks get to see of a call of a case: the flows a policy judges, in order, and by which cgroups.

This is the knowledge of the kernel's own behaviour (which hook runs for what), written down once for the two ways of
judging that make no calls. Must not know verdicts.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from cgnetd.policy.types import Flow, Hook, Protocol, SocketType
from support.calls import KINDS
from support.cases import Call, Endpoint

PICKED_PORT = 40000  # the first one of the range that the kernel picks from in a case's namespace
_PROTOCOLS = {
    "tcp": Protocol.TCP,
    "mptcp": Protocol.TCP,
    "udp": Protocol.UDP,
    "udplite": Protocol.UDPLITE,
    "ping": Protocol.ICMP,
    "raw": Protocol.OTHER,
}
_TYPES = {
    socket.SOCK_STREAM: SocketType.STREAM,
    socket.SOCK_DGRAM: SocketType.DGRAM,
    socket.SOCK_RAW: SocketType.RAW,
}
UNIX = 1
_OPAQUE = ("udplite", "ping", "raw")
_SILENT = {"listen", "socket", "io-uring-socket"}


@dataclass(frozen=True, slots=True)
class Judged:
    """One flow, the cgroup of the task that asks and the cgroup of the socket (None: only the task is asked)."""

    flow: Flow
    task: str
    socket: str | None


def judged(call: Call) -> list[Judged]:
    """Everything that is judged in one call of a case, in the kernel's order."""
    owner = call.socket_cgroup or call.cgroup
    made = [Judged(flow, owner, None) for flow in _creation(call)]
    return made + [Judged(flow, call.cgroup, owner) for flow in _operations(call)]


def _stem(call: Call) -> str:
    return call.via.rstrip("46")


def _creation(call: Call) -> Iterator[Flow]:
    stem, (domain, kind, _) = _stem(call), KINDS[call.via]
    if domain == socket.AF_UNIX:
        return
    family = 4 if domain == socket.AF_INET else 6
    yield Flow(Hook.CREATE, _PROTOCOLS[stem], family, 0, 0, type=_TYPES[socket.SocketKind(kind)])
    if stem in _OPAQUE:
        yield Flow(Hook.SOCKET, _PROTOCOLS[stem], family, 0, 0, raw=stem == "raw")


def _operations(call: Call) -> Iterator[Flow]:
    stem = _stem(call)
    if stem == "raw" or call.call in _SILENT:
        return
    if KINDS[call.via][0] == socket.AF_UNIX:
        yield _named(call)
        return
    if call.source:
        yield from _bind(call, call.source)
    if call.first:
        yield _egress(call, Hook.CONNECT, call.first)
    if "bind" in call.call:
        if stem != "ping":
            yield from _bind(call, call.to[-1])
    elif _connects(call):
        yield from _connect(call)
    elif stem != "ping":
        targets = call.to[:1] if call.call == "send-more" else call.to
        yield from (_egress(call, Hook.SENDMSG, to) for to in targets)


def _named(call: Call) -> Flow:
    hook = Hook.CONNECT if _connects(call) else Hook.SENDMSG
    return Flow(hook, Protocol.OTHER, UNIX, 0, 0, name=os.fsencode(call.to[0].host.replace("@", "\0", 1)))


def _connects(call: Call) -> bool:
    return ("connect" in call.call and call.call != "disconnect") or call.call == "fast-open"


def _connect(call: Call) -> Iterator[Flow]:
    to = call.to[0]
    wrong_family = (to.form == "padded" or (":" in to.host and call.via.endswith("4"))) and _stem(call) != "udp"
    if wrong_family or _stem(call) == "udplite":
        return
    yield _egress(call, Hook.CONNECT, to)
    mapped = _stem(call) == "udp" and to.host.startswith("::ffff:")
    if call.call == "send-connected-cmsg" or (call.call == "send-connected" and mapped):
        yield _egress(call, Hook.SENDMSG, to)


def _egress(call: Call, hook: Hook, to: Endpoint) -> Flow:
    family, address = address_of(to.host)
    if address == 0:
        family, address = _unspecified(call, family)
    return Flow(hook, _PROTOCOLS[_stem(call)], family, address, to.port)


def _unspecified(call: Call, family: int) -> tuple[int, int]:
    """0.0.0.0 and :: mean this host: the address that the socket or the message is bound to, or loopback."""
    bound = call.pktinfo or (call.source.host if call.source else None)
    source = address_of(bound) if bound else (family, 0)
    if family == 6:
        return address_of("127.0.0.1" if source[0] == 4 else "::1")
    return source if source[1] else address_of("127.0.0.1")


def _bind(call: Call, to: Endpoint) -> Iterator[Flow]:
    family, address = address_of(to.host)
    protocol, v6_only = _PROTOCOLS[_stem(call)], "v6only" in call.options
    if to.form == "padded" or (family == 6 and call.via.endswith("4")):
        return
    yield Flow(Hook.BIND, protocol, family, address, to.port, v6_only=v6_only)
    if to.port == 0 and "no-port" not in call.options:
        yield Flow(Hook.POST_BIND, protocol, family, address, PICKED_PORT, v6_only=v6_only)


def address_of(host: str) -> tuple[int, int]:
    """Family and number; an IPv4-mapped address is IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (4, int(mapped)) if mapped else (address.version, int(address))
