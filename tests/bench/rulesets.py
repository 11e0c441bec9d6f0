# SPDX-License-Identifier: Apache-2.0
"""Policies of any number of rules in the shapes that filters have: nested prefixes, ranges of ports, protocols; and
what they do and do not match. The same arguments give the same policy. Must not measure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.prefixes import BITS, Prefix, outside, random_prefixes, without, written

HEAD = "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  subject: {{cgroups: [/{name}]}}\n"
FREE_PORT = 7  # of no rule
_WIDE = 8  # rules for any address: those multiply with all others
_NESTED = 5  # one rule in so many is for part of the addresses of the one before
_WIDEST = {4: 20, 6: 32}


@dataclass(frozen=True, slots=True)
class Rule:
    """Denies UDP, or UDP and TCP, to a prefix (None: any address) and a range of ports."""

    prefix: Prefix | None
    first_port: int
    last_port: int
    protocols: str

    def __str__(self) -> str:
        to = f'"{written(self.prefix)}"' if self.prefix else "any"
        ports = f'"{self.first_port}-{self.last_port}"'
        return f"{{action: deny, log: false, to: [{to}], protocols: [{self.protocols}], ports: [{ports}]}}"


def rules(family: int, count: int) -> list[Rule]:
    source = random.Random(f"rules {family} {count}")
    prefixes = [p for p in random_prefixes(family, 2 * count + 64) if p[2] > _WIDEST[family]]
    found: list[Rule] = []
    for number in range(count):
        first = source.randrange(1024, 65000)
        last = min(65535, first + source.choice((0, 0, 7, 99, 9999)))
        protocols = source.choice(("udp", "udp", "udp, tcp"))
        prefix: Prefix | None = prefixes[number]
        if number % _NESTED == 1 and (outer := found[-1].prefix):
            prefix = _part_of(outer, source)
        if number % 100 == 50 and number < 100 * _WIDE:
            prefix, last = None, first
        found.append(Rule(prefix, first, last, protocols))
    return found


def _part_of(outer: Prefix, source: random.Random) -> Prefix:
    family, address, length = outer
    inner = min(BITS[family], length + 4)
    return family, address | source.getrandbits(inner - length) << (BITS[family] - inner), inner


def policy(name: str, of: list[Rule]) -> str:
    """What no rule matches passes."""
    lines = "".join(f"    - {rule}\n" for rule in of)
    return f"{HEAD.format(name=name)}  egress:\n{lines}"


def matching(of: list[Rule], count: int) -> list[tuple[int, int]]:
    """Addresses and UDP ports, each of a rule that was picked at random. Some match an earlier rule too."""
    source = random.Random(count)
    found = []
    for rule in source.choices([rule for rule in of if rule.prefix], k=count):
        assert rule.prefix
        family, address, length = rule.prefix
        address |= source.getrandbits(BITS[family] - length)
        found.append((address, source.randint(rule.first_port, rule.last_port)))
    return found


def matching_none(of: list[Rule], count: int, listed: Sequence[Prefix] = ()) -> list[tuple[int, int]]:
    """Addresses outside `listed`, half of them of rules if there are such, but a port of none."""
    strange = outside([*listed, *(rule.prefix for rule in of if rule.prefix)], count)
    known = without(listed, [address for address, _ in matching(of, count // 2)])
    both = [(address, FREE_PORT) for address in (*known, *strange)][:count]
    random.Random(count).shuffle(both)
    return both
