# SPDX-License-Identifier: Apache-2.0
"""One list of prefixes that are denied, and the texts that say so to each of those that are compared.

The list is within 127.0.0.0/8, so that a host can ask for any address around it: entries are blocks of four addresses,
their last byte is below 128; what is asked for has 128 or more there (native/peer.c) and is in none of them. Must not
measure, and must not start anything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache

from bench import rulesets
from bench.prefixes import Prefix, written

_LENGTH = 30
_SLOTS = 1 << 16 + 5  # places for an entry: 32 in the lower half of each /24


@cache
def listed(count: int) -> tuple[Prefix, ...]:
    """Random entries, each once, of which none touch."""
    slots = random.Random(count).sample(range(_SLOTS), count)
    return tuple((4, 127 << 24 | slot >> 5 << 8 | (slot & 31) << 2, _LENGTH) for slot in sorted(slots))


def samples(prefixes: Sequence[Prefix]) -> list[int]:
    """An address in the first, one in the last entry, and one in between."""
    return [prefixes[at][1] + 1 for at in (0, len(prefixes) // 2, -1)]


def as_rules(prefixes: Sequence[Prefix], cgroup: str) -> bytes:
    """For cgnetd: a policy with a rule each, on a child of the root."""
    rules = "".join(f"    - {{action: deny, to: [{written(prefix)}]}}\n" for prefix in prefixes)
    return f"{rulesets.HEAD.format(name=cgroup)}  egress:\n{rules}".encode()


def as_set(cgroup: str, path: str) -> str:
    """For cgnetd: a policy with one rule, for a set whose file is at `path`."""
    rule = '    - {action: deny, to: ["set:listed"]}\n'
    document = f"apiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {{name: listed}}\nspec: {{files: [{path}]}}\n---\n"
    return f"{document}{rulesets.HEAD.format(name=cgroup)}  egress:\n{rule}"


def nft_rules(prefixes: Sequence[Prefix], cgroup: str) -> str:
    """For nftables: a chain with a rule each. `cgroup`: its path below the root of the hierarchy, without a slash."""
    rules = "".join(f"add rule ip bench listed ip daddr {written(prefix)} drop\n" for prefix in prefixes)
    return f"{_nft_table(cgroup, 'jump listed', 'add chain ip bench listed')}{rules}"


def nft_set(prefixes: Sequence[Prefix], cgroup: str) -> str:
    """For nftables: one rule, for an interval set."""
    made = "add set ip bench listed { type ipv4_addr; flags interval; }"
    elements = ", ".join(map(written, prefixes))
    return f"{_nft_table(cgroup, 'ip daddr @listed drop', made)}add element ip bench listed {{ {elements} }}\n"


def _nft_table(cgroup: str, says: str, made: str) -> str:
    """Replaces what was there in the same transaction."""
    level = cgroup.count("/") + 1
    return (
        f"add table ip bench\ndelete table ip bench\nadd table ip bench\n{made}\n"
        "add chain ip bench out { type filter hook output priority 0; }\n"
        f'add rule ip bench out socket cgroupv2 level {level} "{cgroup}" {says}\n'
    )


def iptables(prefixes: Sequence[Prefix], cgroup: str) -> str:
    """For iptables-restore: a chain with a rule each."""
    rules = "".join(f"-A listed -d {written(prefix)} -j DROP\n" for prefix in prefixes)
    head = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:listed - [0:0]\n"
    return f"{head}-A OUTPUT -m cgroup --path {cgroup} -j listed\n{rules}COMMIT\n"


def unit_lines(prefixes: Sequence[Prefix], a_line: int = 1000) -> Iterator[str]:
    """For systemd: settings of a unit."""
    for start in range(0, len(prefixes), a_line):
        yield f"IPAddressDeny={' '.join(map(written, prefixes[start : start + a_line]))}\n"


def firewalld_set(prefixes: Sequence[Prefix]) -> str:
    """For firewalld: the file of an ipset."""
    entries = "".join(f"  <entry>{written(prefix)}</entry>\n" for prefix in prefixes)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<ipset type="hash:net">\n{entries}</ipset>\n'
