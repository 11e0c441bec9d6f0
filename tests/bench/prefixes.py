# SPDX-License-Identifier: Apache-2.0
"""Lists of prefixes, random and real, and addresses that are in them or not. Must not know who looks them up.

A prefix is (family, first address, length). The same arguments give the same list.
"""

from __future__ import annotations

import ipaddress
import lzma
import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

Prefix = tuple[int, int, int]

BITS = {4: 32, 6: 128}
_CLOUDS_PATH = Path(__file__).parent / "data" / "clouds.txt.xz"
# Lengths and their share in a hundred, about as in routing tables and block lists.
_LENGTHS = {
    4: {20: 5, 22: 10, 24: 55, 28: 10, 32: 20},
    6: {32: 5, 40: 10, 48: 55, 56: 10, 64: 15, 128: 5},
}
_UNICAST = {4: (1 << 24, 224 << 24), 6: (1 << 125, 1 << 126)}  # 1.0.0.0 up to multicast; 2000::/3


@cache
def random_prefixes(family: int, count: int) -> tuple[Prefix, ...]:
    """Distinct ones; some lie in others."""
    source = random.Random(f"{family} {count}")
    lengths, weights = zip(*_LENGTHS[family].items(), strict=True)
    first, end = _UNICAST[family]
    found: dict[Prefix, None] = {}
    while len(found) < count:
        for length in source.choices(lengths, weights, k=count - len(found)):
            host_bits = BITS[family] - length
            found[family, source.randrange(first, end) >> host_bits << host_bits, length] = None
    return tuple(found)


@cache
def real_prefixes(family: int) -> tuple[Prefix, ...]:
    """Published ranges of large clouds, many within others."""
    lines = lzma.decompress(_CLOUDS_PATH.read_bytes()).decode("ascii").splitlines()
    networks = (ipaddress.ip_network(line) for line in lines if not line.startswith("#"))
    return tuple((n.version, int(n.network_address), n.prefixlen) for n in networks if n.version == family)


def text(prefixes: Iterable[Prefix]) -> bytes:
    """As a set file, one a line."""
    return "".join(f"{written(prefix)}\n" for prefix in prefixes).encode("ascii")


def written(prefix: Prefix) -> str:
    family, address, length = prefix
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return f"{kind(address)}/{length}"


def inside(prefixes: Sequence[Prefix], count: int) -> list[int]:
    """Addresses in prefixes that were picked at random."""
    source = random.Random(count)
    picked = source.choices(prefixes, k=count)
    return [address | source.getrandbits(BITS[family] - length) for family, address, length in picked]


def outside(prefixes: Sequence[Prefix], count: int) -> list[int]:
    """Addresses in none of them: of IPv4 anywhere, of IPv6 in the same /32 as one of them, for there are few others
    that anybody asks for."""
    source, found = random.Random(count), list[int]()
    family = prefixes[0][0]
    first, end = _UNICAST[family]
    while len(found) < count:
        if family == 4:
            tried = [source.randrange(first, end) for _ in range(count)]
        else:
            tried = [near >> 96 << 96 | source.getrandbits(96) for _, near, _ in source.choices(prefixes, k=count)]
        found += without(prefixes, tried)
    return found[:count]


def without(prefixes: Sequence[Prefix], addresses: Sequence[int]) -> list[int]:
    """Those addresses that are in none of the prefixes, which are of one family."""
    starts, ends = spans(prefixes)
    return [a for a in addresses if not (at := bisect_right(starts, a)) or ends[at - 1] < a]


def spans(prefixes: Sequence[Prefix]) -> tuple[list[int], list[int]]:
    """First and last addresses of what they cover, disjoint and sorted."""
    starts, ends = list[int](), list[int]()
    for family, first, length in sorted(prefixes):
        last = first + (1 << (BITS[family] - length)) - 1
        if not ends or first > ends[-1]:
            starts.append(first)
            ends.append(last)
        else:
            ends[-1] = max(ends[-1], last)
    return starts, ends
