# SPDX-License-Identifier: Apache-2.0
"""A call as somebody asks about it on the control socket, as a flow. Must not know the answer."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Any

from cgnetd.datapath import abi
from cgnetd.errors import UsageError
from cgnetd.policy.types import Flow, Hook, Protocol, SocketType

_HOOKS = {hook.value: hook for hook in Hook}
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol} | {"mptcp": Protocol.TCP}
_TYPES = {kind.value: kind for kind in SocketType}
_EGRESS = (Hook.CONNECT, Hook.SENDMSG)
_UNIX = "unix"
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def parse_flow(args: Mapping[str, Any]) -> Flow:
    """The flow of `hook`, `protocol` and what belongs to them. Raises UsageError saying what is accepted.

    `protocol` "raw" (hook socket): a raw socket. "unix": `name`, an abstract one begins with "@". Hook create:
    `family` 4 or 6 and `type`. Otherwise `address`, `port` and for a bind to :: `v6_only`.
    """
    hook = _HOOKS.get(str(args.get("hook")))
    if hook is None:
        raise UsageError(f"explain: hook {args.get('hook')!r} is none of {', '.join(_HOOKS)}")
    if hook is Hook.CREATE:
        return _new_socket(args)
    name = str(args.get("protocol"))
    if name == _UNIX:
        return _unix(hook, args.get("name"))
    raw = name == "raw" and hook is Hook.SOCKET
    protocol = Protocol.OTHER if raw else _PROTOCOLS.get(name)
    if protocol is None:
        accepted = [*_PROTOCOLS, "unix (hooks connect and sendmsg)", "raw (hook socket)"]
        raise UsageError(f"explain: protocol {name!r} is none of {', '.join(accepted)}")
    if hook is Hook.SOCKET:
        return Flow(hook, protocol, 4, 0, 0, raw=raw)
    address = _address(args.get("address"))
    port = args.get("port", 0)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise UsageError(f"explain: port {port!r} is not a number from 0 to 65535")
    return Flow(hook, protocol, address.version, _number(hook, address), port, v6_only=args.get("v6_only") is True)


def _new_socket(args: Mapping[str, Any]) -> Flow:
    family, kind = args.get("family"), _TYPES.get(str(args.get("type")))
    if family not in (4, 6) or isinstance(family, bool):
        raise UsageError(f"explain: family {family!r} is neither 4 nor 6")
    if kind is None:
        raise UsageError(f"explain: type {args.get('type')!r} is none of {', '.join(_TYPES)}")
    return Flow(Hook.CREATE, Protocol.OTHER, family, 0, 0, type=kind)


def _unix(hook: Hook, text: Any) -> Flow:
    if hook not in _EGRESS:
        raise UsageError(f"explain: UNIX sockets meet the hooks connect and sendmsg only, not {hook.value}")
    name = _name(text) if isinstance(text, str) else b""
    if not 0 < len(name) <= abi.UNIX_NAME_MAX:
        raise UsageError(f"explain: name {text!r} is no name of 1 to {abi.UNIX_NAME_MAX} bytes")
    return Flow(hook, Protocol.OTHER, abi.FAMILY_UNIX, 0, 0, name=name)


def _name(text: str) -> bytes:
    """Empty for what cannot be a name."""
    try:
        return b"\0" + os.fsencode(text[1:]) if text.startswith("@") else os.fsencode(text)
    except UnicodeEncodeError:
        return b""


def _address(text: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError:
        raise UsageError(f"explain: {text!r} is no address") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _number(hook: Hook, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """The wildcard as a destination is the loopback address, as the kernel takes it."""
    if hook in _EGRESS and not int(address):
        return int(ipaddress.ip_address(_LOOPBACK[address.version]))
    return int(address)
