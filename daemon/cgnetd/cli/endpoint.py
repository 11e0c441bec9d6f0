# SPDX-License-Identifier: Apache-2.0
"""The words HOOK PROTO [PLACE] of a command line -> a Flow; a place is ADDRESS:PORT, or the name of a UNIX socket.

Pure. Must not know of files, cgroups or the daemon.
"""

from __future__ import annotations

import ipaddress
import os

from cgnetd.errors import UsageError
from cgnetd.policy.types import Flow, Hook, Protocol, SocketType

HOOKS = {hook.value: hook for hook in Hook}
PROTOCOLS = {protocol.value: protocol for protocol in Protocol} | {"mptcp": Protocol.TCP}
PORTLESS = (Protocol.ICMP, Protocol.OTHER)
UNIX = "unix"
FAMILIES = {"inet": 4, "inet6": 6}
KINDS = {f"{word}/{kind.value}": (family, kind) for word, family in FAMILIES.items() for kind in SocketType}

FAMILY_UNIX = 1
NAME_MAX = 108  # bytes of sun_path

_LOOPBACK = {4: int(ipaddress.IPv4Address("127.0.0.1")), 6: int(ipaddress.IPv6Address("::1"))}


def parse_flow(hook: str, protocol: str, place: str | None, *, v6_only: bool = False) -> Flow:
    """The flow that the words name, with the addresses as the programs see them.

    `protocol` "raw" is a raw socket (hook socket only), "unix" a UNIX socket (connect and sendmsg), and for the hook
    create a kind of socket such as "inet/stream". `place` is left out for the hooks socket and create. An egress
    destination 0.0.0.0 or :: is loopback, and an IPv4-mapped address is the IPv4 one. Raises UsageError.
    """
    the_hook = HOOKS.get(hook)
    if the_hook is None:
        raise UsageError(f"read hook {hook!r}: not one of {', '.join(HOOKS)}")
    if the_hook in (Hook.SOCKET, Hook.CREATE) and place is not None:
        raise UsageError(f"explain {hook}: {place!r} is too much, a new socket has no destination yet")
    if the_hook is Hook.CREATE:
        return _new_socket(protocol)
    if protocol == UNIX:
        return _unix_flow(the_hook, place)
    raw = protocol == "raw"
    if raw and the_hook is not Hook.SOCKET:
        raise UsageError("read protocol 'raw': that is for the hook socket only; for create write inet/raw")
    the_protocol = Protocol.OTHER if raw else PROTOCOLS.get(protocol)
    if the_protocol is None:
        raise UsageError(f"read protocol {protocol!r}: not one of {', '.join([*PROTOCOLS, 'raw', UNIX])}")
    if the_hook is Hook.SOCKET:
        return Flow(the_hook, the_protocol, 4, 0, 0, raw=raw)
    if place is None:
        raise UsageError(f"explain {hook}: ADDRESS:PORT is missing, e.g. 192.0.2.1:443 or '[2001:db8::1]:443'")
    family, address, port = parse_endpoint(place, port_needed=the_protocol not in PORTLESS)
    if the_hook in (Hook.CONNECT, Hook.SENDMSG) and address == 0:
        address = _LOOPBACK[family]
    return Flow(the_hook, the_protocol, family, address, port, v6_only=v6_only)


def _new_socket(kind: str) -> Flow:
    if kind not in KINDS:
        raise UsageError(f"read socket {kind!r}: not one of {', '.join(KINDS)}")
    family, socket_type = KINDS[kind]
    return Flow(Hook.CREATE, Protocol.OTHER, family, 0, 0, type=socket_type)


def _unix_flow(hook: Hook, name: str | None) -> Flow:
    if hook not in (Hook.CONNECT, Hook.SENDMSG):
        raise UsageError(f"explain {hook.value} unix: UNIX sockets meet the hooks connect and sendmsg only")
    if not name:
        raise UsageError(f"explain {hook.value} unix: the name is missing, e.g. /run/app.sock or @name")
    found = parse_name(name)
    if len(found) > NAME_MAX:
        raise UsageError(f"read {name!r}: longer than the {NAME_MAX} bytes that a UNIX socket's name can have")
    return Flow(hook, Protocol.OTHER, FAMILY_UNIX, 0, 0, name=found)


def parse_name(text: str) -> bytes:
    """`/run/app.sock`, or `@name` for an abstract one -> the bytes of the name; an abstract one begins with NUL."""
    return b"\0" + os.fsencode(text[1:]) if text.startswith("@") else os.fsencode(text)


def format_name(name: bytes) -> str:
    """The inverse of `parse_name`."""
    return f"@{os.fsdecode(name[1:])}" if name.startswith(b"\0") else os.fsdecode(name)


def parse_endpoint(text: str, *, port_needed: bool = True) -> tuple[int, int, int]:
    """`192.0.2.1:443`, `[2001:db8::1]:443` -> (family 4 or 6, host-order address, port). Raises UsageError."""
    host, port_text = _split(text)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(
            f"read {text!r}: {host!r} is not an address; write 192.0.2.1:443 or '[2001:db8::1]:443'"
        ) from None
    if port_text is None:
        if port_needed:
            bare = f"[{host}]" if address.version == 6 else host
            raise UsageError(f"read {text!r}: the port is missing; write {bare}:PORT")
        port_text = "0"
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= 0xFFFF):
        raise UsageError(f"read {text!r}: port {port_text!r} is not a number from 0 to 65535")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return address.version, int(address), int(port_text)


def format_endpoint(family: int, address: int, port: int) -> str:
    """The inverse of `parse_endpoint`."""
    if family == 4:
        return f"{ipaddress.IPv4Address(address)}:{port}"
    return f"[{ipaddress.IPv6Address(address)}]:{port}"


def _split(text: str) -> tuple[str, str | None]:
    """Host and port. Without brackets an IPv6 address has no port: `::1:443` is an address of its own."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"read {text!r}: write '[2001:db8::1]:443'")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None
