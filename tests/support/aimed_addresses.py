# SPDX-License-Identifier: Apache-2.0
"""Sets of addresses made to meet the mistakes of classifiers, from a seeded generator.

Nested prefixes of every length, prefixes that touch, addresses that differ in one bit, thousands of ranges in one
place or all over the line. All sizes are of the result before ranges that touch become one. Must not know rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from random import Random

from cgnetd.policy.ranges import merged, subtracted
from cgnetd.policy.types import AddressRanges, Range

BITS = {4: 32, 6: 128}
STRIDES = (
    0,
    8,
    9,
    12,
    16,
    24,
    32,
    39,
    48,
    64,
    78,
    87,
    96,
    112,
)  # depths at which tables change from one step to the next
Prefix = tuple[int, int]  # first address and length
Drawn = list[list[Prefix]]  # prefixes by the set that they go into


def span(family: int, prefix: Prefix) -> Range:
    """The addresses of a prefix, whose first address may be any of them."""
    host_bits = BITS[family] - prefix[1]
    first = prefix[0] >> host_bits << host_bits
    return first, first | (1 << host_bits) - 1


def as_set(v4: Iterable[Prefix], v6: Iterable[Prefix]) -> AddressRanges:
    return AddressRanges(merged(span(4, prefix) for prefix in v4), merged(span(6, prefix) for prefix in v6))


def without(base: AddressRanges, holes: AddressRanges) -> AddressRanges:
    """`except`, also where it takes everything of a family away."""
    return AddressRanges(subtracted(base.v4, holes.v4), subtracted(base.v6, holes.v6))


def both(source: Random, draw: Callable[[Random, int], Drawn]) -> list[AddressRanges]:
    """As many sets as are drawn for a family, with the prefixes of both, of one where the other has fewer."""
    return [as_set(v4, v6) for v4, v6 in zip_longest(draw(source, 4), draw(source, 6), fillvalue=())]


def spines(source: Random, family: int) -> Drawn:
    """Some addresses, each in its prefixes of every length. One set a length, the longest first: then the first rule
    that matches is the longest prefix. Some addresses are the same up to one bit, some are at the end of the line."""
    bits = BITS[family]
    ends = [0, (1 << bits) - 1, source.getrandbits(bits)]
    ends += [ends[2] ^ 1 << bits - 1 - source.randrange(bits) for _ in range(3)]
    ends += [ends[2] ^ 1 << bits - 1 - depth for depth in STRIDES if depth < bits]
    many = range(bits, -1, -1)
    return [[(end, length) for end in source.sample(ends, 1 if length < 8 else 4)] for length in many]


def twins(source: Random, family: int) -> Drawn:
    """Hosts that differ from one another in one bit, at every bit, and prefixes that end behind it."""
    bits, drawn = BITS[family], [list[Prefix]() for _ in range(6)]
    for base in (source.getrandbits(bits), 0, (1 << bits) - 1):
        source.choice(drawn).append((base, bits))
        for bit in range(bits):
            twin = base ^ 1 << bits - 1 - bit
            source.choice(drawn).append((twin, bits))
            if source.random() < 0.3:
                source.choice(drawn).append((twin, bit + 1))
    return drawn


def tree(count: int) -> Callable[[Random, int], Drawn]:
    """`count` prefixes that grew from one another: halves, neighbours that touch, parents, the first and the last
    address of one, and now and then one that is elsewhere."""

    def draw(source: Random, family: int) -> Drawn:
        bits, drawn = BITS[family], [list[Prefix]() for _ in range(8)]
        grown: list[Prefix] = [(source.getrandbits(bits), source.choice((8, 16, 24, 32)))]
        for _ in range(count):
            prefix = _grow(source, bits, source.choice(grown))
            grown.append(prefix)
            source.choice(drawn).append(prefix)
        return drawn

    return draw


def _grow(source: Random, bits: int, prefix: Prefix) -> Prefix:
    address, length = prefix
    size = 1 << bits - length
    first = address & ~(size - 1)
    match source.randrange(8):
        case 0:
            return first ^ size if length else first, length  # the other half of what holds it
        case 1:
            return (first + size) & (1 << bits) - 1, length
        case 2:
            return first, length - 1 if length > 10 else length
        case 3:
            return source.choice((first, first + size - 1)), bits
        case 4:
            return source.getrandbits(bits), min(source.choice((*STRIDES[1:], length)), bits)
        case 5:
            return first + source.randrange(size), min(next((s for s in STRIDES if s > length), bits), bits)
        case _:
            return first + source.randrange(size), min(length + source.randint(1, 9), bits)


def crowd(count: int, least: int = 16) -> Callable[[Random, int], Drawn]:
    """`count` ranges in one place, hosts or prefixes of one length: their first 16 bits or more are the same, of IPv6
    at least the first `least`."""

    def draw(source: Random, family: int) -> Drawn:
        bits, drawn = BITS[family], [list[Prefix]() for _ in range(4)]
        room = (count * 4).bit_length()  # bits that tell them apart
        depths = [depth for depth in (*STRIDES, bits - room) if max(least, 16) <= depth <= bits - room]
        depth = 16 if family == 4 else source.choice(depths)
        low = max(bits - depth - room, 0)
        high = source.getrandbits(depth) << bits - depth
        for number in source.sample(range(1 << min(room, bits - depth)), count):
            address = high | number << low | source.choice((0, source.getrandbits(low), (1 << low) - 1))
            source.choice(drawn).append((address, source.choice((bits, bits - low))))
        return drawn

    return draw


def words(source: Random, family: int) -> Drawn:
    """Addresses whose words of 32 bits are of a few, next to one another and at the ends, with prefixes that end in, at
    and behind each word: what carries from one word into the next. Words begin at bit 0 or at bit 16."""
    bits, drawn = BITS[family], [list[Prefix]() for _ in range(8)]
    middle, before = source.randint(1, (1 << 32) - 2), source.choice((0, 16))
    few_words = (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, middle - 1, middle, middle + 1)
    ends = {end + by for end in range(before, bits + 1, 32) for by in (-16, -1, 0, 1)}
    lengths = sorted(length for length in ends if 4 <= length <= bits)
    for number in range(8 * bits):
        drawn_words = sum(source.choice(few_words) << 32 * word for word in range(bits // 32 + 1))
        length = source.choice(lengths) if number < 12 else source.choice((bits, bits, bits - 1))
        source.choice(drawn).append((drawn_words >> 32 - before & (1 << bits) - 1, length))
    return drawn


def scattered(count: int) -> Callable[[Random, int], Drawn]:
    """`count` prefixes all over the line, hardly any of which touch: what needs the largest root."""

    def draw(source: Random, family: int) -> Drawn:
        bits, drawn = BITS[family], [list[Prefix]() for _ in range(3)]
        lengths = (24, 28, 32) if family == 4 else (20, 32, 48, 56, 64, 128)
        for _ in range(count):
            source.choice(drawn).append((source.getrandbits(bits), source.choice(lengths)))
        return drawn

    return draw


def few(count: int) -> Callable[[Random, int], Drawn]:
    """`count` prefixes, of any lengths if they are up to eight: what is searched without a root, or only just with
    one."""

    def draw(source: Random, family: int) -> Drawn:
        drawn = [list[Prefix]() for _ in range(4)]
        lengths = (0, 1, *STRIDES, 128) if count <= 8 else (16, 24, 32, 96, 128)
        for _ in range(count):
            address = source.getrandbits(BITS[family])
            source.choice(drawn).append((address, min(source.choice(lengths), BITS[family])))
        return drawn

    return draw
