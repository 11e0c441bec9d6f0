# SPDX-License-Identifier: Apache-2.0
"""What was compiled for the last policy sets, so that what has not changed is not compiled again.

Policies are compared, not hashed: a hash would read every prefix of every set; a comparison stops at objects that are
the same. Must not know how anything is compiled.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence

from cgnetd.datapath.blob import PolicyBlob
from cgnetd.policy.types import AddressRanges, Policy, Rule, Subject, Tier

Subjects = tuple[tuple[Subject, Tier], ...]


class BlobCache:
    """Blobs by policy, and the last automaton by subjects. Not thread-safe. Holds what the last `retain` named."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[Policy, PolicyBlob]] = {}
        self._automaton: tuple[Subjects, tuple[array[int], int]] | None = None

    def blob(self, policy: Policy, build: Callable[[Policy], PolicyBlob]) -> PolicyBlob:
        """The blob of a policy whose rules are equal to these; built and kept if there is none."""
        known = self._blobs.get(policy.name)
        blob = known[1] if known is not None and same_rules(known[0], policy) else build(policy)
        self._blobs[policy.name] = (policy, blob)
        return blob

    def automaton(self, subjects: Subjects, build: Callable[[], tuple[array[int], int]]) -> tuple[array[int], int]:
        """The automaton's cells and state count for these subjects and tiers in this order."""
        if self._automaton is None or self._automaton[0] != subjects:
            self._automaton = (subjects, build())
        return self._automaton[1]

    def retain(self, policies: Collection[Policy]) -> None:
        """Forget every policy that is not among these."""
        names = {policy.name for policy in policies}
        for name in self._blobs.keys() - names:
            del self._blobs[name]


def same_rules(one: Policy, other: Policy) -> bool:
    """Whether two policies compile into the same blob: same rules in the same order, whatever their names or places."""
    if one is other:
        return True
    if (one.default_egress, one.default_bind) != (other.default_egress, other.default_bind):
        return False
    equal: dict[tuple[int, int], bool] = {}
    return _same_list(one.egress, other.egress, equal) and _same_list(one.bind, other.bind, equal)


def _same_list(one: Sequence[Rule], other: Sequence[Rule], equal: dict[tuple[int, int], bool]) -> bool:
    return len(one) == len(other) and all(_same_rule(a, b, equal) for a, b in zip(one, other, strict=True))


def _same_rule(one: Rule, other: Rule, equal: dict[tuple[int, int], bool]) -> bool:
    return (
        one.action is other.action
        and one.ports == other.ports
        and one.ephemeral == other.ephemeral
        and one.protocols == other.protocols
        and one.hooks == other.hooks
        and _same_addresses(one.addresses, other.addresses, equal)
    )


def _same_addresses(one: AddressRanges | None, other: AddressRanges | None, equal: dict[tuple[int, int], bool]) -> bool:
    """Compare two address objects once, however many rules share them."""
    if one is other:
        return True
    key = (id(one), id(other))
    if key not in equal:
        equal[key] = one == other
    return equal[key]
