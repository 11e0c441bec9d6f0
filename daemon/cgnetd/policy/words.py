# SPDX-License-Identifier: Apache-2.0
"""Addresses, CIDRs and address words as the policy language writes them.

No `ipaddress` objects: a set holds a hundred thousand prefixes, and inet_pton is ten times as fast. An IPv4-mapped
IPv6 address is the IPv4 address. Must not know of sets' contents or of rules.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from .ranges import EVERYTHING
from .scalars import shown
from .suggest import did_you_mean
from .types import AddressRanges, Range

_MAPPED = 0xFFFF  # bits 127..32 of ::ffff:0:0/96
_V4_MASKS = [(1 << 32 - bits) - 1 for bits in range(33)]  # by prefix length: the bits that are not of the network
_V6_MASKS = [(1 << 128 - bits) - 1 for bits in range(129)]
_LENGTHS = {str(bits): bits for bits in range(129)}


class AddressError(ValueError):
    """A word that is no address; the text says what is wrong and what is accepted."""


def parse_prefix(text: str) -> tuple[int, Range]:
    """Family (4 or 6) and range of an address or a CIDR. Raises AddressError."""
    address, slash, length = text.partition("/")
    try:
        if ":" in address:
            first = int.from_bytes(inet_pton(AF_INET6, address), "big")
            masks = _V6_MASKS
        else:
            first = int.from_bytes(inet_pton(AF_INET, address), "big")
            masks = _V4_MASKS
    except (OSError, ValueError):  # ValueError: a NUL in it
        raise AddressError(_not_an_address(text)) from None
    bits = _LENGTHS.get(length, -1) if slash else len(masks) - 1
    if not 0 <= bits < len(masks):
        raise AddressError(f'"{shown(text)}" has a bad prefix length: accepted are 0 to {len(masks) - 1}')
    mask = masks[bits]
    if first & mask:
        raise AddressError(f'"{shown(text)}" has host bits set: the network is {_network(first & ~mask, bits, masks)}')
    last = first | mask if mask else first
    if masks is _V4_MASKS:
        return 4, (first, last)
    if first >> 32 == _MAPPED and bits >= 96:
        return 4, (first & 0xFFFFFFFF, last & 0xFFFFFFFF)
    return 6, (first, last)


def _network(first: int, bits: int, masks: list[int]) -> str:
    family, size = (AF_INET, 4) if masks is _V4_MASKS else (AF_INET6, 16)
    return f"{inet_ntop(family, first.to_bytes(size, 'big'))}/{bits}"


def _not_an_address(text: str) -> str:
    if text != text.strip():
        return f'"{shown(text)}" has blanks around it'
    if "%" in text:
        return f'"{shown(text)}" has a zone: accepted is an address or a CIDR without one'
    if _WITH_PORT.fullmatch(text):
        return f'"{shown(text)}" is more than an address: write it without brackets and port, ports go under `ports`'
    return f'"{shown(text)}" is not an address or a CIDR such as 10.0.0.0/8'


def _cidrs(*texts: str) -> AddressRanges:
    parsed = [parse_prefix(text) for text in texts]
    v4 = tuple(sorted(found for family, found in parsed if family == 4))
    return AddressRanges(v4, tuple(sorted(found for family, found in parsed if family == 6)))


WORDS = {
    "any": EVERYTHING,
    "localhost": _cidrs("127.0.0.0/8", "::1"),
    "link-local": _cidrs("169.254.0.0/16", "fe80::/10"),
    "multicast": _cidrs("224.0.0.0/4", "ff00::/8"),
    "private": _cidrs("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
_NUMERIC = re.compile(r"[\s\[]*([0-9]|[0-9a-fA-F]{0,4}:)")  # what cannot be but an address, if maybe a wrong one
_WITH_PORT = re.compile(r"[0-9.]+:[0-9]+|\[.*")
_NOT_YET = ("local", "interface:", "host:")
_ACCEPTED = f"accepted: an address, a CIDR, {', '.join(WORDS)}"


def parse_word(text: str, *, names: tuple[str, ...] = ()) -> AddressRanges:
    """The addresses of any word that is not a reference to something by its name; `names` are the references that are
    accepted in its place, for messages. Raises AddressError."""
    if text in WORDS:
        return WORDS[text]
    if _NUMERIC.match(text):
        family, found = parse_prefix(text)
        return AddressRanges((found,), ()) if family == 4 else AddressRanges((), (found,))
    accepted = ", ".join((_ACCEPTED, *names))
    if text == "local" or text.startswith(_NOT_YET[1:]):
        raise AddressError(f'"{shown(text)}" is not supported yet by this version; {accepted}')
    raise AddressError(f'"{shown(text)}" is not an address word{did_you_mean(text, WORDS)}; {accepted}')
