# SPDX-License-Identifier: Apache-2.0
"""What the last `parse` found in files that have not changed since, so that one changed rule costs one file.

Files that hold nothing but policies without any mistake are remembered, and what they refer to: where that is another
set, service or user by now, the file is read again. Must not know how anything is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from ..errors import Problem
from .addresses import Lists
from .types import AddressRanges, Policy, Service


@dataclass(frozen=True, slots=True)
class KnownFile:
    """The policies of one file, and all that they were made of beside it."""

    data: bytes
    policies: tuple[Policy, ...]
    references: frozenset[str]  # words `set:NAME` and `service:NAME`
    sets: Mapping[str, AddressRanges]  # by name, of those words
    services: Mapping[str, Service]
    users: Mapping[str, int]  # by name, of subjects
    lists: Lists  # addresses that its rules made of several words, so that other files' rules need not make them again

    def holds(
        self, sets: Mapping[str, AddressRanges], services: Mapping[str, Service], find_user: Callable[[str], int]
    ) -> bool:
        """Whether the same text would mean the same among these. Sets are the same if they are the same objects."""
        if not (self.sets or self.services or self.users):
            return True
        return (
            all(sets.get(name) is ranges for name, ranges in self.sets.items())
            and all(services.get(name) == service for name, service in self.services.items())
            and all(_uid(name, find_user) == uid for name, uid in self.users.items())
        )


@dataclass(slots=True)
class Known:
    """To be given to one `parse` after the other; each brings it up to date. Not thread-safe."""

    files: dict[str, KnownFile] = field(default_factory=dict)  # by path
    doubts: dict[int, tuple[Policy, tuple[Problem, ...]]] = field(default_factory=dict)  # by identity of the policy
    _set_files: dict[str, tuple[bytes, AddressRanges]] = field(default_factory=dict)
    _unions: dict[str, tuple[tuple[str, ...], Sequence[AddressRanges], AddressRanges]] = field(default_factory=dict)

    def file(self, path: str, data: bytes) -> KnownFile | None:
        """What is known of a file that holds these bytes."""
        known = self.files.get(path)
        return known if known is not None and known.data == data else None

    def set_file(self, path: str, digest: bytes | None) -> AddressRanges | None:
        """The addresses in a set file of this digest."""
        known = self._set_files.get(path)
        return known[1] if known is not None and known[0] == digest else None

    def learn_set_file(self, path: str, digest: bytes, ranges: AddressRanges) -> None:
        self._set_files[path] = (digest, ranges)

    def union(self, name: str, words: tuple[str, ...], files: Sequence[AddressRanges]) -> AddressRanges | None:
        """The addresses of the set `name` if it is still made of these words and contents of files."""
        known = self._unions.get(name)
        if known is None or known[0] != words or len(known[1]) != len(files):
            return None
        return known[2] if all(one is other for one, other in zip(known[1], files, strict=True)) else None

    def learn_union(
        self, name: str, words: tuple[str, ...], files: Sequence[AddressRanges], found: AddressRanges
    ) -> None:
        self._unions[name] = (words, tuple(files), found)

    def retain(self, *, files: set[str], set_files: set[str], sets: set[str], policies: Sequence[Policy]) -> None:
        """Forget everything but these: paths, paths, names, and doubts about policies."""
        for known, wanted in ((self.files, files), (self._set_files, set_files), (self._unions, sets)):
            for gone in known.keys() - wanted:
                del known[gone]
        here = {id(policy) for policy in policies}
        for identity in self.doubts.keys() - here:
            del self.doubts[identity]


def _uid(name: str, find_user: Callable[[str], int]) -> int | None:
    try:
        return find_user(name)
    except KeyError:
        return None


def digest_of(data: bytes) -> bytes:
    """What a set file is known by."""
    return sha256(data).digest()  # which CPUs have instructions for
