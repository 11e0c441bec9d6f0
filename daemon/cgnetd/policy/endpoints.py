# SPDX-License-Identifier: Apache-2.0
"""Single addresses, with a port or without, as targets and sources are written.

Must not know of rules or services.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_ntop

from .ranges import within
from .scalars import shown
from .types import Endpoint
from .words import WORDS, AddressError, parse_prefix

_BROADCAST = (1 << 32) - 1
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")


def parse_endpoint(text: str) -> Endpoint:
    """`ADDRESS`, `ADDRESS:PORT`, `[V6]` or `[V6]:PORT`; a port left out is 0. Raises AddressError."""
    address, port = text, None
    if found := _BRACKETED.fullmatch(text):
        address, port = found[1], found[2]
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        family, number = parse_address(address)
    except AddressError:
        raise AddressError(_not_a_target(text)) from None
    if found and ":" not in address:
        raise AddressError(f'"{shown(text)}" has brackets around an IPv4 address')
    return Endpoint(family, number, 0 if port is None else _port(port, text))


def _not_a_target(text: str) -> str:
    if "%" in text:
        return f'"{shown(text)}" has a zone'
    return f'"{shown(text)}" is not one address, with or without a port'


def _port(port: str, text: str) -> int:
    number = int(port) if _PORT.fullmatch(port) else 0
    if not 1 <= number <= 65535:
        raise AddressError(f'"{shown(text)}" has a bad port, which is 1 to 65535, or left out to keep the port')
    return number


def parse_address(text: str) -> tuple[int, int]:
    """Family (4 or 6) and number of one address; an IPv4-mapped one is of family 4. Raises AddressError."""
    if "/" in text:
        raise AddressError(f'"{shown(text)}" is a network: accepted is one address')
    family, (address, _) = parse_prefix(text)
    return family, address


def unusable(family: int, address: int) -> str:
    """Why nothing can be sent to the address, nor from it; "" if something can."""
    if address == 0:
        return "is the unspecified address"
    if within(address, _ranges(family, "multicast")):
        return "is a multicast address"
    if family == 4 and address == _BROADCAST:
        return "is the broadcast address"
    return scoped(family, address)


def scoped(family: int, address: int) -> str:
    """Why the address means nothing without a device; "" if it does."""
    if family == 6 and within(address, _ranges(6, "link-local")):
        return "is link-local and would need a zone"
    return ""


def _ranges(family: int, word: str) -> Sequence[tuple[int, int]]:
    return WORDS[word].v4 if family == 4 else WORDS[word].v6


def address_text(family: int, address: int) -> str:
    kind, size = (AF_INET, 4) if family == 4 else (AF_INET6, 16)
    return inet_ntop(kind, address.to_bytes(size, "big"))


def endpoint_text(endpoint: Endpoint) -> str:
    """The endpoint as it would be written; without its port if that is kept."""
    address = address_text(endpoint.family, endpoint.address)
    if not endpoint.port:
        return address
    return f"[{address}]:{endpoint.port}" if endpoint.family == 6 else f"{address}:{endpoint.port}"
