# SPDX-License-Identifier: Apache-2.0
"""Globs as lists of tokens over bytes, and the positions in them that an automaton's states are made of.

Must not know of cgroups, sockets or cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SLASH = 0x2F
EVERY_BYTE = (1 << 256) - 1


@dataclass(frozen=True, slots=True)
class Token:
    """`mask`: bit B set where byte B matches. `repeat`: any number of such bytes, also none."""

    mask: int
    repeat: bool = False


class Moves(NamedTuple):
    """Positions after one more byte: by byte where it matters which, otherwise `others`."""

    by_byte: dict[int, list[int]]
    others: list[int]


class Positions:
    """The globs, token by token, each followed by an end: a position is an index into these lists.

    `outside` is a byte that never comes, because whoever reads the globs looks at it first.
    """

    def __init__(self, globs: Sequence[Sequence[Token]], outside: int | None = None) -> None:
        self.masks: list[int] = []  # 0 is the end of a glob
        self.repeats: list[bool] = []
        self.stars: list[bool] = []  # any bytes may follow here, for good
        self.globs: list[int] = []  # the number of the glob that a position is in
        self.starts: list[int] = []  # the first position of each glob
        for number, glob in enumerate(globs):
            self.starts.append(len(self.masks))
            self.masks += [*(token.mask for token in glob), 0]
            self.repeats += [*(token.repeat for token in glob), False]
            self.stars += [*(token.repeat and token.mask == EVERY_BYTE for token in glob), False]
            self.globs += [number] * (len(glob) + 1)
        self._bytes = {mask: _bytes_of(mask, outside) for mask in set(self.masks)}

    def enter(self, positions: Sequence[int]) -> set[int]:
        """The positions, and those behind a repeat that may stand for nothing (a star's own followers left out)."""
        found = set(positions)
        for position in positions:
            behind = position
            while self.repeats[behind] and not self.stars[behind]:
                behind += 1
                found.add(behind)
        return found

    def moves(self, positions: Iterable[int]) -> Moves:
        """Where each byte leads."""
        by_byte: dict[int, list[int]] = {}
        wide: list[tuple[int, frozenset[int]]] = []
        for position in positions:
            following = position if self.repeats[position] else position + 1
            some, named = self._bytes[self.masks[position]]
            if some:
                for byte in named:
                    by_byte.setdefault(byte, []).append(following)
            else:
                wide.append((following, named))
        for _, missing in wide:
            for byte in missing:
                by_byte.setdefault(byte, [])
        for following, missing in wide:
            for byte, positions_there in by_byte.items():
                if byte not in missing:
                    positions_there.append(following)
        return Moves(by_byte, [following for following, _ in wide])


def _bytes_of(mask: int, outside: int | None) -> tuple[bool, frozenset[int]]:
    """(True, the bytes that match) or (False, the bytes that do not), whichever is shorter."""
    some = mask.bit_count() <= 128
    return some, frozenset(byte for byte in range(256) if byte != outside and (mask >> byte & 1) == some)
