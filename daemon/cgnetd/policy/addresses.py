# SPDX-License-Identifier: Apache-2.0
"""The addresses of lists of words. Must not know of rules or documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .fields import SERVICE, SET
from .ranges import EVERYTHING, MAX_RANGES, difference, merged, size, union
from .types import AddressRanges, Service

Lists = dict[tuple[tuple[str, ...], tuple[str, ...]], AddressRanges | None]  # by words and those taken away


class TooManyRangesError(Exception):
    """The rules' addresses together are more than is sane; the text tells the limit."""


class Addresses:
    """The addresses of lists of words. Equal lists give the same object, so that a big set is held once."""

    def __init__(
        self, words: Mapping[str, AddressRanges], sets: Mapping[str, AddressRanges], services: Mapping[str, Service]
    ) -> None:
        self._words = words
        self.sets = sets
        self._services = {name: _virtual(service) for name, service in services.items()}
        self._known: Lists = {}
        self._ranges = 0  # that lists of several words made, all together
        self.asked: Lists = {}  # such lists, since whoever asks has emptied this

    def know(self, words: Iterable[str]) -> bool:
        """Whether all words have addresses: sets and services that are wrong have none."""
        return all(self._word(word) is not None for word in words)

    def keep(self, lists: Lists) -> None:
        """Take over lists, `asked` of an earlier time, whose words mean the same here. Raises TooManyRangesError."""
        for key, found in lists.items():
            if key not in self._known:
                self._known[key] = found
                self._count(found)

    def of(self, to: Sequence[str], holes: Sequence[str]) -> AddressRanges | None:
        """`to` (empty: any) less `holes`, words that are known; None is every address. Raises TooManyRangesError."""
        if not to and not holes:
            return None
        there = self._word(to[0]) if len(to) == 1 and not holes else None
        if there is not None:  # the usual case: nothing has to be made
            return None if there == EVERYTHING else there
        key = (tuple(to), tuple(holes))
        if key not in self._known:
            self._known[key] = self._computed(to, holes)
            self._count(self._known[key])
        self.asked[key] = self._known[key]
        return self._known[key]

    def _computed(self, to: Sequence[str], holes: Sequence[str]) -> AddressRanges | None:
        found = self._union(to) if to else EVERYTHING
        if holes:
            found = difference(found, self._union(holes))
        return None if found == EVERYTHING else found

    def _count(self, made: AddressRanges | None) -> None:
        self._ranges += size(made or EVERYTHING)
        if self._ranges > MAX_RANGES:
            raise TooManyRangesError(f"the addresses of all rules make more than {MAX_RANGES} ranges")

    def _union(self, words: Sequence[str]) -> AddressRanges:
        return union([found for word in words if (found := self._word(word)) is not None])

    def _word(self, word: str) -> AddressRanges | None:
        if word.startswith(SET):
            return self.sets.get(word.removeprefix(SET))
        if word.startswith(SERVICE):
            return self._services.get(word.removeprefix(SERVICE))
        return self._words.get(word)


def _virtual(service: Service) -> AddressRanges:
    v4, v6 = (merged((a, a) for f, a in service.addresses if f == family) for family in (4, 6))
    return AddressRanges(v4, v6)
