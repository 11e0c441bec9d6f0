# SPDX-License-Identifier: Apache-2.0
"""The structures of bpf/structures.bpf.c, laid out: answer 1 for what prefixes cover, 0 for all else.

Must not know who looks them up, or what they are weighed against.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from bench.prefixes import BITS, Prefix, spans

_ROOT_BITS = 16
_STEP = 6
_WIDTH = _ROOT_BITS + 19 * _STEP  # bits of an address with what the last step reads beyond it
_LEAF = 1 << 63
_LOW = (1 << 64) - 1


def pieces(prefixes: Sequence[Prefix]) -> tuple[list[int], list[int]]:
    """Where answers change, from 0 on, and the answers from there on."""
    starts, answers = [0], [0]
    for first, last in zip(*spans(prefixes), strict=True):
        if first == starts[-1]:
            del starts[-1], answers[-1]  # in place: there can be a million
        starts += [first, last + 1]
        answers += [1, 0]
    if starts[-1] == 1 << BITS[prefixes[0][0]]:
        del starts[-1], answers[-1]
    return starts, answers


def rooted(family: int, starts: Sequence[int], answers: Sequence[int]) -> array[int]:
    """A root of as many bits as there are pieces for, at most 16, and what begins where, to be bisected."""
    bits = min(_ROOT_BITS, len(starts).bit_length() - 1)
    rest, at, width = BITS[family] - bits, 1 + (1 << bits), 1 if family == 4 else 3
    cells = array("Q", [bits])
    for top in range(1 << bits):
        first = bisect_right(starts, top << rest) - 1
        count = bisect_left(starts, (top + 1) << rest) - first
        cells.append(answers[first] << 32 if count == 1 else (at + first * width) << 32 | count)
    cells.extend(_entries(family, starts, answers))
    return cells


def _entries(family: int, starts: Sequence[int], answers: Sequence[int]) -> Iterable[int]:
    for start, answer in zip(starts, answers, strict=True):
        yield from (start << 32 | answer,) if family == 4 else (start >> 64, start & _LOW, answer)


def trie(family: int, starts: Sequence[int], answers: Sequence[int]) -> array[int]:
    """A trie of six bits a step, below a root of 16."""
    return _Trie([start << _WIDTH - BITS[family] for start in starts], answers).cells


class _Trie:
    def __init__(self, starts: Sequence[int], answers: Sequence[int]) -> None:
        self._starts, self._answers = starts, answers
        self.cells = array("Q", bytes(8 << _ROOT_BITS))
        rest = _WIDTH - _ROOT_BITS
        for top in range(1 << _ROOT_BITS):
            first, last = bisect_right(starts, top << rest) - 1, bisect_left(starts, (top + 1) << rest) - 1
            self.cells[top] = _LEAF | answers[first]
            if first < last:
                self.cells[top] = at = self._reserve(3)
                self._fill(at, first, last, top << rest, rest)

    def _reserve(self, count: int) -> int:
        at = len(self.cells)
        self.cells.extend([0] * count)
        return at

    def _fill(self, at: int, first: int, last: int, begin: int, bits: int) -> None:
        """Write the node at `at`, of the pieces `first` to `last`, about addresses from `begin` on that differ in the
        last `bits` bits."""
        rest, slot, runs, run_bits = bits - _STEP, 0, list[int](), 0
        inner: list[tuple[int, int, int]] = []
        inner_bits = 0
        while slot < 1 << _STEP:
            here = begin + (slot << rest)
            while first < last and self._starts[first + 1] <= here:
                first += 1
            following = self._starts[first + 1] if first < last else begin + (1 << bits)
            whole = following - here >> rest
            if not whole:
                beyond = bisect_left(self._starts, here + (1 << rest), first, last + 1) - 1
                inner.append((first, beyond, here))
                inner_bits |= 1 << slot
            elif not runs or runs[-1] != self._answers[first]:
                runs.append(self._answers[first])
                run_bits |= 1 << slot
            slot += whole or 1
        nodes = self._reserve(3 * len(inner))
        self.cells[at : at + 3] = array("Q", [inner_bits, run_bits, nodes << 32 | len(self.cells)])
        self.cells.extend(runs)
        for number, (one, other, here) in enumerate(inner):
            self._fill(nodes + 3 * number, one, other, here, rest)
