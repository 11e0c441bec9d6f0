# SPDX-License-Identifier: Apache-2.0
"""What rtnetlink tells of devices and local addresses, as values. Must not know who asks, nor keep anything.

The messages are pyroute2's, the sockets our own: its socket classes differ from version to version and bring an event
loop along. Importing pyroute2 costs some 25 MB and 0.1 s: that is done when something is asked for the first time.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# <linux/rtnetlink.h> and <linux/netlink.h>
NEW_LINK, GONE_LINK, _GET_LINK = 16, 17, 18
_GET_ROUTE = 26
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_SOL_NETLINK = 270
_STRICT_CHECK = 12  # NETLINK_GET_STRICT_CHK: what is asked for is a filter (Linux 4.20)
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_ANSWER_BYTES = 1 << 17
_ATTEMPTS = 8
_LOCAL_TABLE = 255
_LOCAL_ROUTE = 2  # RTN_LOCAL
_UP = 1  # IFF_UP


@dataclass(frozen=True, slots=True)
class Device:
    index: int
    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One notification. `device` is None if it is about an address or a route."""

    kind: int
    device: Device | None


def devices() -> tuple[Device, ...]:
    """Of the caller's network namespace. OSError."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    request = ifinfmsg()
    request["attrs"].append(("IFLA_EXT_MASK", _SKIP_STATISTICS))
    return tuple(found for message in _dump(request, _GET_LINK) if (found := _device(message)))


def local_networks() -> frozenset[Network]:
    """What the caller's network namespace takes for itself: single addresses, 127.0.0.0/8, and the like. OSError."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    found: set[Network] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = rtmsg()
        request["family"], request["table"], request["type"] = int(family), _LOCAL_TABLE, _LOCAL_ROUTE
        found.update(_network(message) for message in _dump(request, _GET_ROUTE) if _is_local(message, family))
    return frozenset(found)


def events(data: bytes) -> Iterator[Event]:
    """The notifications in one message of the kernel. A bridge's ports and the like are passed over."""
    for message in _parse(data):
        kind = message["header"]["type"]
        if kind not in (NEW_LINK, GONE_LINK):
            yield Event(kind, None)
        elif device := _device(message):
            yield Event(kind, device)


def _device(message: Any) -> Device | None:
    """None if it is about something else of a device: family AF_BRIDGE tells of ports that a bridge gets or loses."""
    name = message.get_attr("IFLA_IFNAME")
    if message["family"] != socket.AF_UNSPEC or name is None:
        return None
    return Device(message["index"], name, bool(message["flags"] & _UP))


def _is_local(message: Any, family: int) -> bool:
    """A kernel without the family answers for all others, one without the strict check for all tables."""
    return (message["family"], message["type"], message["table"]) == (family, _LOCAL_ROUTE, _LOCAL_TABLE)


def _network(message: Any) -> Network:
    address = message.get_attr("RTA_DST") or ("::" if message["family"] == socket.AF_INET6 else "0.0.0.0")
    return ipaddress.ip_network(f"{address}/{message['dst_len']}")


def _parse(data: bytes) -> Iterator[Any]:
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    yield from MarshalRtnl().parse(data)


def _dump(request: Any, kind: int) -> tuple[Any, ...]:
    """Everything of a kind; asked again if it changed meanwhile, as long as that may help."""
    request["header"]["type"] = kind
    request["header"]["flags"] = _REQUEST | _DUMP
    request.encode()
    for _ in range(_ATTEMPTS):
        with _asking() as channel:
            channel.send(request.data)
            found = tuple(_answers(channel))
        if not any(message["header"]["flags"] & _INTERRUPTED for message in found):
            break
    return tuple(message for message in found if message["header"]["type"] != _DONE)


@contextmanager
def _asking() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as channel:
        channel.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        yield channel


def _answers(channel: socket.socket) -> Iterator[Any]:
    """All of them, the one that says so included."""
    while True:
        for message in _parse(channel.recv(_ANSWER_BYTES)):
            if message["header"]["type"] == _ERROR:
                number = abs(message["header"]["error"].code)
                if number == errno.ENOENT:  # no such table: nothing was ever put into it
                    return
                raise OSError(number, os.strerror(number))
            yield message
            if message["header"]["type"] == _DONE:
                return
