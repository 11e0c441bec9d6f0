# SPDX-License-Identifier: Apache-2.0
"""A large host: 1,000 policies, 10,000 cgroups that 5,950 different chains of policies govern, a million prefixes.

One policy a slice, one a unit that every slice has, one each for units of their own: a cgroup's chain is its unit's
policy and its slice's. Must not know who reads it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from support import classbench

CHANGING = "127.0.0.9"  # denied to every unit with a policy at the port that its policy was made with
_RULES = 4  # of each policy, on networks and ports of its own
_NETWORKS = ("0/24", "128/25", "64/26")


@dataclass(frozen=True, slots=True)
class Crowd:
    """How large. `own` units have a policy that no other unit has; the first `sets` slices deny a set each."""

    slices: int = 100
    common: int = 50  # units that every slice has, with a policy each
    own: int = 850
    units: int = 99  # cgroups in each slice
    sets: int = 10  # 16 at most
    prefixes: int = 100_000  # in each set, 131,072 at most

    @property
    def policies(self) -> int:
        return self.slices + self.common + self.own

    @property
    def cgroups(self) -> int:
        """Slices and units."""
        return self.slices * (1 + self.units)

    @property
    def chains(self) -> int:
        """Different lists of policies that govern a cgroup."""
        return self.slices * (1 + self.common) + self.own

    def write(self, write_policy: Callable[[str, str], None], set_dir: Path) -> None:
        """Everything as files, one a policy, and one with the sets."""
        for number in range(self.sets):
            self.write_set(number, set_dir)
        documents = (classbench.set_text(f"s{n}", str(set_dir / f"{n}.txt")) for n in range(self.sets))
        write_policy("sets.yaml", "---\n".join(documents))
        for number in range(self.slices):
            write_policy(f"slice{number}.yaml", self._slice_policy(number))
        for name in (*(f"common{n}" for n in range(self.common)), *(f"own{n}" for n in range(self.own))):
            write_policy(f"{name}.yaml", unit_policy(name))

    def write_set(self, number: int, set_dir: Path, seed: int = 0) -> None:
        """A set's file, in one step. Another `seed` is another list of the same length."""
        fresh = set_dir / f".{number}"
        fresh.write_text("".join(f"{prefix}\n" for prefix in self.prefixes_of(number, seed)), encoding="ascii")
        fresh.rename(set_dir / f"{number}.txt")

    def prefixes_of(self, number: int, seed: int = 0) -> Iterator[str]:
        """Of one set: networks that neither nest nor touch, and are in no other set."""
        for block in random.Random(f"{number} {seed}").sample(range(1 << 17), self.prefixes):
            address = (16 + number + 16 * (block >> 15)) << 24 | (block & 0x7FFF) << 9
            yield f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.0/24"

    def paths(self) -> Iterator[str]:
        """The cgroups, parents first, relative to the root."""
        own = iter(range(self.own))
        for number in range(self.slices):
            yield slice_name(number)
            names = [f"common{n}" for n in range(self.common)]
            names += [f"own{n}" for n in islice(own, self.units - self.common)]
            names += [f"free{n}" for n in range(self.units - len(names))]
            yield from (f"{slice_name(number)}/{name}.service" for name in names)

    def _slice_policy(self, number: int) -> str:
        head = classbench.head(f"slice{number}", f"/{slice_name(number)}")
        last = f"    - {{name: listed, action: deny, to: ['set:s{number}']}}\n" if number < self.sets else ""
        return f"{head}  egress:\n{_rules(f'slice{number}')}{last}"


def slice_name(number: int) -> str:
    return f"s{number}.slice"


def unit_policy(name: str, port: int = 443) -> str:
    """The policy of a unit; `port` is what changes about it."""
    last = f"    - {{name: changing, action: deny, to: [{CHANGING}], ports: [{port}]}}\n"
    head = f"apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n"
    return f"{head}  subject: {{units: [{name}.service]}}\n  egress:\n{_rules(name)}{last}"


def _rules(seed: str) -> str:
    source = random.Random(seed)
    return "".join(
        f"    - {{name: r{number}, action: {source.choice(('allow', 'deny'))}, "
        f"to: [10.{source.randrange(256)}.{source.randrange(256)}.{source.choice(_NETWORKS)}], "
        f"protocols: [tcp], ports: [{source.randrange(1, 65536)}]}}\n"
        for number in range(_RULES)
    )
