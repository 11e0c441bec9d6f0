# SPDX-License-Identifier: Apache-2.0
"""How soon to look again after a call met tables that cannot be right: at once, but not again and again for nothing.

Must not know what makes tables doubtful, nor what a look does.
"""

from __future__ import annotations

from dataclasses import dataclass

SHORTEST_S = 1.0
LONGEST_S = 60.0


@dataclass(slots=True)
class Recheck:
    """The time between looks doubles while they find nothing to repair. Times are seconds of one monotonic clock."""

    _gap_s: float = 0.0
    _next_s: float = 0.0

    def delay_s(self, now_s: float) -> float:
        """How long to wait before looking, as of now."""
        return max(0.0, self._next_s - now_s)

    def looked(self, now_s: float, *, repaired: bool) -> None:
        """A look ended now."""
        self._gap_s = SHORTEST_S if repaired else min(max(2 * self._gap_s, SHORTEST_S), LONGEST_S)
        self._next_s = now_s + self._gap_s
