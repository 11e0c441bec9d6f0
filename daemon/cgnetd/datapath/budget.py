# SPDX-License-Identifier: Apache-2.0
"""How much one policy may grow while it is compiled: cells of the image, and steps of work.

Rules that overlap can multiply: N nested ranges with N port lists make N * N cells. A budget refuses such a policy by
name before anything in the kernel is touched. Must not know what the cells hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cgnetd.errors import PolicyError, Problem
from cgnetd.policy.types import Where

# 64 MiB; a million IPv4 prefixes need a quarter of it. Not above 2^abi.BISECT_STEPS: no list may outgrow the bisection.
DEFAULT_LIMIT_CELLS = 1 << 23


@dataclass(slots=True)
class Budget:
    """Counts cells and steps (visits of one rule at one place) against the same limit; PolicyError beyond it."""

    policy: str
    where: Where
    limit: int = DEFAULT_LIMIT_CELLS
    cells: int = field(default=0, init=False)
    steps: int = field(default=0, init=False)

    def spend_cells(self, count: int) -> None:
        self.cells += count
        if self.cells > self.limit:
            self.refuse(
                f"needs more than {self.limit} cells ({self.limit >> 17} MiB) of tables; use fewer prefixes or ports"
            )

    def foresee(self, count: int) -> None:
        """Refuse at once what will take so many more steps, rather than when most of them are made."""
        if self.steps + count > self.limit:
            self.spend_steps(count)

    def spend_steps(self, count: int) -> None:
        self.steps += count
        if self.steps > self.limit:
            self.refuse(f"has rules that overlap in more than {self.limit} places; merge rules or split the policy")

    def refuse(self, reason: str) -> None:
        """Raise PolicyError for this policy."""
        raise too_large(self.where, f'policy "{self.policy}" {reason}')


def too_large(where: Where, reason: str) -> PolicyError:
    """The error for a set that does not fit, at the place of the policy that is to blame."""
    return PolicyError([Problem(where.file, where.line, where.column, "", reason)])
