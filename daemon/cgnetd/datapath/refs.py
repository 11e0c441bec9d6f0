# SPDX-License-Identifier: Apache-2.0
"""Rule names in little memory: a generation's are kept for as long as it is in force, and there can be many thousands.

A few arrays instead of an object for each: objects made while files are read keep the memory around them from being
given back. Must not know what a rule is good for.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import eq
from typing import NamedTuple, overload


class RuleRef(NamedTuple):
    """One rule id. A built-in rule has an empty policy, section, file and tier; a default is named "default.egress",
    "default.bind" or "default.socket" and stands where `spec.default` does."""

    rule_id: int
    policy: str
    rule: str
    section: str  # "egress" | "bind" | "socket" | ""
    file: str
    line: int  # from 1, 0 = nowhere
    action: str  # "allow" | "deny" | "pass" | "redirect" | "rewrite"
    errno: int  # of a deny, positive; 0 else
    log: bool
    tier: str  # "admin" | "normal" | "baseline" | ""
    audit: bool
    to: str = ""  # where it leads and what it sets, in words: "127.0.0.1:8080, [::1]:8080", "service:db", "@name"


_SHARED_FIELDS = 9
_Shared = tuple[str, str, str, str, int, bool, str, bool, str]  # what many rules have in common


class RuleBlock:
    """Rules that follow each other, without their ids: those of one policy, which stay the same while it does.

    `acting`: places of those that lead somewhere. `encoded`: a place for the block's bytes, made when they are needed.
    """

    __slots__ = ("_ends", "_lines", "_names", "_shared", "_which", "acting", "encoded")

    def __init__(self, refs: Iterable[RuleRef]) -> None:
        shared: dict[_Shared, int] = {}
        names: list[str] = []
        acting: list[int] = []
        self._which, self._lines, self._ends = array("I"), array("q"), array("Q")
        end = 0
        for number, ref in enumerate(refs):
            common = (ref.policy, ref.section, ref.file, ref.action, ref.errno, ref.log, ref.tier, ref.audit, ref.to)
            self._which.append(shared.setdefault(common, len(shared)))
            self._lines.append(ref.line)
            names.append(ref.rule)
            end += len(ref.rule)
            self._ends.append(end)
            if ref.to:
                acting.append(number)
        self._names = "".join(names)
        self._shared = tuple(shared)
        self.acting = tuple(acting)
        self.encoded: bytes | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def ref(self, number: int, rule_id: int) -> RuleRef:
        """The rule at a place, under an id."""
        policy, section, file, action, errno, log, tier, audit, to = self._shared[self._which[number]]
        name = self._names[self._ends[number - 1] if number else 0 : self._ends[number]]
        return RuleRef(rule_id, policy, name, section, file, self._lines[number], action, errno, log, tier, audit, to)

    def columns(self) -> tuple[object, ...]:
        """All of it as lists and texts; `from_columns` takes them."""
        return self._shared, self._which.tolist(), self._lines.tolist(), self._ends.tolist(), self._names

    @classmethod
    def from_columns(
        cls, shared: list[list[object]], which: list[int], lines: list[int], ends: list[int], names: str
    ) -> RuleBlock:
        """ValueError, TypeError or OverflowError if they do not fit together."""
        block = cls(())
        block._which, block._lines, block._ends = array("I", which), array("q", lines), array("Q", ends)
        block._shared = tuple(tuple(common) for common in shared)  # type: ignore[misc]
        block._names = names
        if len({len(which), len(lines), len(ends)}) > 1 or ends != sorted(ends) or (ends or [0])[-1] != len(names):
            raise ValueError("rules are not complete")
        if any(len(common) != _SHARED_FIELDS for common in shared) or any(at >= len(shared) for at in which):
            raise ValueError("rules have no policy")
        block.acting = tuple(number for number, at in enumerate(which) if shared[at][-1])
        return block


class RuleRefs(Sequence[RuleRef]):
    """Rules by id; each is made anew when it is asked for. ValueError if ids are not 0, 1, 2..."""

    __slots__ = ("_firsts", "_length", "blocks")

    def __init__(self, refs: Iterable[RuleRef]) -> None:
        found = list(refs)
        if any(ref.rule_id != number for number, ref in enumerate(found)):
            raise ValueError("rule ids are not dense")
        self._hold([RuleBlock(found)])

    @classmethod
    def of_blocks(cls, blocks: Sequence[RuleBlock]) -> RuleRefs:
        """Ids go on from one block to the next."""
        refs = cls(())
        refs._hold(blocks)
        return refs

    def _hold(self, blocks: Sequence[RuleBlock]) -> None:
        self.blocks = tuple(block for block in blocks if len(block))
        ends = list(accumulate(len(block) for block in self.blocks))
        self._firsts, self._length = [0, *ends[:-1]], ends[-1] if ends else 0

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> RuleRef: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RuleRef, ...]: ...

    def __getitem__(self, index: int | slice) -> RuleRef | tuple[RuleRef, ...]:
        numbers = range(len(self))[index]
        return self._ref(numbers) if isinstance(numbers, int) else tuple(map(self._ref, numbers))

    def __iter__(self) -> Iterator[RuleRef]:
        for first, block in zip(self._firsts, self.blocks, strict=False):
            for number in range(len(block)):
                yield block.ref(number, first + number)

    def acting(self) -> list[int]:
        """Ids of the rules that lead somewhere, ascending."""
        blocks = zip(self._firsts, self.blocks, strict=False)
        return [first + number for first, block in blocks for number in block.acting]

    def _ref(self, rule_id: int) -> RuleRef:
        at = bisect_right(self._firsts, rule_id) - 1
        return self.blocks[at].ref(rule_id - self._firsts[at], rule_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleRefs) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash((len(self), self[0] if len(self) else None))
