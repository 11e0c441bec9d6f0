# SPDX-License-Identifier: Apache-2.0
"""Rule names in little memory: a generation's are kept for as long as it is in force, and there can be many thousands.

A few arrays instead of an object for each: objects made while files are read keep the memory around them from being
given back. Must not know what a rule is good for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
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


_Shared = tuple[str, str, str, str, int, bool, str, bool, str]  # what many rules have in common


class RuleRefs(Sequence[RuleRef]):
    """Rules by id; each is made anew when it is asked for. ValueError if ids are not 0, 1, 2..."""

    __slots__ = ("_ends", "_lines", "_names", "_shared", "_which")

    def __init__(self, refs: Iterable[RuleRef]) -> None:
        shared: dict[_Shared, int] = {}
        names: list[str] = []
        self._which, self._lines, self._ends = array("I"), array("q"), array("Q")
        end = 0
        for number, ref in enumerate(refs):
            if ref.rule_id != number:
                raise ValueError("rule ids are not dense")
            common = (ref.policy, ref.section, ref.file, ref.action, ref.errno, ref.log, ref.tier, ref.audit, ref.to)
            self._which.append(shared.setdefault(common, len(shared)))
            self._lines.append(ref.line)
            names.append(ref.rule)
            end += len(ref.rule)
            self._ends.append(end)
        self._names = "".join(names)
        self._shared = tuple(shared)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> RuleRef: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RuleRef, ...]: ...

    def __getitem__(self, index: int | slice) -> RuleRef | tuple[RuleRef, ...]:
        numbers = range(len(self))[index]
        return self._ref(numbers) if isinstance(numbers, int) else tuple(map(self._ref, numbers))

    def __iter__(self) -> Iterator[RuleRef]:
        return map(self._ref, range(len(self)))

    def _ref(self, number: int) -> RuleRef:
        policy, section, file, action, errno, log, tier, audit, to = self._shared[self._which[number]]
        name = self._names[self._ends[number - 1] if number else 0 : self._ends[number]]
        return RuleRef(number, policy, name, section, file, self._lines[number], action, errno, log, tier, audit, to)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleRefs) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((len(self), self._names))

    def _key(self) -> tuple[object, ...]:
        return self._shared, self._which, self._lines, self._ends, self._names
