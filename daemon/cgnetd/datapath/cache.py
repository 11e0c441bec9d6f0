# SPDX-License-Identifier: Apache-2.0
"""What was compiled for the last policy sets, so that what has not changed is not compiled again.

Policies are known by identity, and by a digest of what their rules match. Must not know how anything is compiled.
"""

from __future__ import annotations

import hashlib
import marshal
from array import array
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from cgnetd.datapath.blob import PolicyBlob
from cgnetd.datapath.needs import policy_needs
from cgnetd.datapath.refs import RuleBlock
from cgnetd.datapath.rules import PolicyRef, policy_ref, policy_refs, rule_word
from cgnetd.policy.packed import PackedRanges
from cgnetd.policy.types import AddressRanges, Hook, Policy, Protocol, Range, Rule, SocketType, Subject, Tier

Subjects = tuple[tuple[Subject, Tier], ...]

_DIGEST_BYTES = 32
_PLAIN = 2  # version of marshal's format in which equal values have equal bytes
_RANGES_AT_ONCE = 1 << 16
_FEW_RANGES = 4


class PolicyPart(NamedTuple):
    """`named`: under id 0; `words`: lower halves of the rules' cells; `needs`: words of rules.NEEDS."""

    blob: PolicyBlob
    named: PolicyRef
    rules: RuleBlock
    words: tuple[int, ...]
    needs: frozenset[str]


class BlobCache:
    """What was made of each policy, and the last automaton by subjects. Not thread-safe. Holds what the last `retain`
    named."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[Policy, bytes, PolicyPart]] = {}
        self._automaton: tuple[Subjects, tuple[array[int], int]] | None = None
        self._addresses = _AddressDigests()

    def part(self, policy: Policy, build: Callable[[Policy], PolicyBlob]) -> PolicyPart:
        """What the policy brings into an image: as before if it is the same object; with the blob of before if its
        rules match as they did; else built, and kept."""
        known = self._parts.get(policy.name)
        if known is not None and known[0] is policy:
            return known[2]
        digest = _digest(policy, self._addresses)
        blob = known[2].blob if known is not None and known[1] == digest else build(policy)
        refs = list(policy_refs(policy))
        words = tuple(map(rule_word, refs))
        part = PolicyPart(blob, policy_ref(0, policy), RuleBlock(refs), words, policy_needs(policy))
        self._parts[policy.name] = (policy, digest, part)
        return part

    def automaton(self, subjects: Subjects, build: Callable[[], tuple[array[int], int]]) -> tuple[array[int], int]:
        """The automaton's cells and state count for these subjects and tiers in this order."""
        if self._automaton is None or self._automaton[0] != subjects:
            self._automaton = (subjects, build())
        return self._automaton[1]

    def forget_addresses(self) -> None:
        """Hold no addresses that only somebody else may need: they can be many."""
        self._addresses = _AddressDigests()

    def retain(self, policies: Collection[Policy]) -> None:
        """Forget every policy that is not among these."""
        names = {policy.name for policy in policies}
        for name in self._parts.keys() - names:
            del self._parts[name]


class _AddressDigests:
    """Digests of addresses, each object read once however many rules share it."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[AddressRanges, bytes]] = {}  # the object, so that its id stays its own

    def of(self, addresses: AddressRanges | None) -> object:
        """What tells the addresses from others: themselves, if they are few. To be marshalled."""
        if addresses is None:
            return b""
        if len(addresses.v4) + len(addresses.v6) <= _FEW_RANGES:
            return tuple(addresses.v4), tuple(addresses.v6)
        known = self._known.get(id(addresses))
        if known is None:
            known = self._known[id(addresses)] = (addresses, _ranges_digest(addresses.v4, addresses.v6))
        return known[1]


def _ranges_digest(*families: Sequence[Range]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for ranges in families:
        digest.update(len(ranges).to_bytes(8, "little"))
        if isinstance(ranges, PackedRanges):
            for part in ranges.parts():
                digest.update(part)
            continue
        for start in range(0, len(ranges), _RANGES_AT_ONCE):
            digest.update(marshal.dumps(tuple(ranges[start : start + _RANGES_AT_ONCE]), _PLAIN))
    return digest.digest()


def _digest(policy: Policy, addresses: _AddressDigests) -> bytes:
    """Equal for policies that compile into the same blob: the same rules in order, whatever their names or places.

    Where a rule leads is not among it: that stands outside the blob.
    """
    defaults = (policy.default_egress.value, policy.default_bind.value, policy.default_socket.value)
    sections = [[_matched(rule, addresses) for rule in rules] for rules in (policy.egress, policy.bind)]
    sockets = [_matched_socket(rule) for rule in policy.socket]
    content = marshal.dumps((defaults, sections, sockets, repr(policy.tcp)), _PLAIN)
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _matched(rule: Rule, addresses: _AddressDigests) -> tuple[object, ...]:
    protocols = None if rule.protocols is None else _words(rule.protocols)
    hooks = _words(rule.hooks)
    place = rule.unix if rule.unix is not None else (addresses.of(rule.addresses), protocols, rule.ports)
    return (rule.action.value, place, rule.ephemeral, hooks, rule.source is None)


def _matched_socket(rule: Rule) -> tuple[object, ...]:
    families = None if rule.families is None else sorted(rule.families)
    return families, None if rule.types is None else _words(rule.types)


@lru_cache(maxsize=256)
def _words(values: frozenset[Protocol] | frozenset[Hook] | frozenset[SocketType]) -> str:
    return " ".join(sorted(word.value for word in values))
