# SPDX-License-Identifier: Apache-2.0
"""Large policy sets shaped like those that classifiers are judged by: nested prefixes, port ranges, few protocols.

Shapes follow what ClassBench found in real filters: most destinations below a few hosts of prefixes that nest a few
levels deep, half of the rules with one well-known port, the rest with ranges or none. The same seed gives the same
text. Must not know who compiles it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_DEPTHS = (8, 12, 16, 20, 22, 24, 24, 24, 26, 28, 29, 30, 32, 32, 32, 32)  # prefix lengths as often as they come
_WELL_KNOWN = (22, 25, 53, 80, 110, 123, 143, 161, 389, 443, 993, 1433, 1521, 3306, 5432, 6379, 8080, 8443, 9092, 27017)
_RANGES = ((0, 1023), (1024, 65535), (6000, 6063), (8000, 8099), (20, 21), (137, 139), (33434, 33523), (49152, 65535))
_PROTOCOLS = ("tcp", "tcp", "tcp", "udp", "udp", "any")
_SPINES = 64  # long prefixes are drawn below this many short ones
_V6_SHARE = 8  # one rule in so many is on IPv6


def rules_text(count: int, *, seed: int = 1, name: str = "bench", cgroup: str = "/bench") -> str:
    """A Policy document of `count` egress rules on distinct lines."""
    source = random.Random(seed)
    spines = _spines(source)
    lines = "\n".join(f"    - {_rule(source, spines, number)}" for number in range(count))
    return f"{head(name, cgroup)}  default: {{egress: deny}}\n  egress:\n{lines}\n"


def head(name: str, cgroup: str) -> str:
    """The beginning of a Policy document, up to `spec:` and the subject."""
    return (
        f"apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  subject: {{cgroups: [{cgroup}]}}\n"
    )


def prefixes(count: int, *, seed: int = 1) -> list[str]:
    """`count` distinct IPv4 networks that neither nest nor touch, as of a blocklist; at most 2,000,000."""
    source = random.Random(seed)
    starts = source.sample(range(1 << 21), count)
    return [_v4(start << 11 | 1 << 8, 24) for start in starts]


def set_text(name: str, path: str) -> str:
    """An AddressSet document whose addresses are in a file."""
    return f"apiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {{name: {name}}}\nspec: {{files: [{path}]}}\n"


def nested_text(count: int) -> str:
    """The worst shape: `count` ranges, each inside the one before, each with a port of its own, and nothing shared."""
    lines = "".join(
        f"    - {{action: deny, to: [10.0.0.0/8], except: [{_v4(0x0A000000 + number, 32)}], ports: [{1 + number}]}}\n"
        for number in range(count)
    )
    return f"{head('nested', '/nested')}  egress:\n{lines}"


def hosts_text(count: int) -> str:
    """Every rule its own host and port range: nothing overlaps, nothing is shared."""
    lines = "".join(
        f"    - {{action: deny, to: [{_v4(0x0A000000 + 2 * n, 32)}], ports: [{1 + n % 60000}-{2 + n % 60000}]}}\n"
        for n in range(count)
    )
    return f"{head('hosts', '/hosts')}  egress:\n{lines}"


def _spines(source: random.Random) -> Sequence[int]:
    return [source.randrange(1, 224) << 24 | source.randrange(1 << 16) << 8 for _ in range(_SPINES)]


def _rule(source: random.Random, spines: Sequence[int], number: int) -> str:
    action = "allow" if source.random() < 0.7 else "deny"
    fields = [f"action: {action}", f"to: [{_destination(source, spines)}]", *_ports(source)]
    return f"{{name: r{number}, {', '.join(fields)}}}"


def _destination(source: random.Random, spines: Sequence[int]) -> str:
    bits = source.choice(_DEPTHS)
    spine = source.choice(spines)
    if source.randrange(_V6_SHARE) == 0:
        return f'"2001:db8:{spine >> 16:x}:{source.randrange(1 << 16):x}::/64"'
    address = spine ^ source.randrange(1 << 16) if bits > 16 else spine
    return _v4(address, bits)


def _ports(source: random.Random) -> Iterator[str]:
    protocol = source.choice(_PROTOCOLS)
    if protocol != "any":
        yield f"protocols: [{protocol}]"
    shape = source.random()
    if shape < 0.5:
        yield f"ports: [{source.choice(_WELL_KNOWN)}]"
    elif shape < 0.7:
        first, last = source.choice(_RANGES)
        yield f"ports: [{max(first, 1)}-{last}]"
    elif shape < 0.85:
        yield f"ports: [{source.randrange(1, 65536)}]"


def _v4(address: int, bits: int) -> str:
    network = address & (0xFFFFFFFF << 32 - bits) & 0xFFFFFFFF
    return f"{network >> 24}.{network >> 16 & 255}.{network >> 8 & 255}.{network & 255}/{bits}"
