# SPDX-License-Identifier: Apache-2.0
"""Address tables, read back as the programs read them, against a plain search in the pieces that they were made of."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from random import Random

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.addresses import V4, V6, Family, Pieces, table_cells
from cgnetd.datapath.reader import CellReader

LENGTHS = (0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 95, 96, 97, 111, 112, 113, 127, 128)
NEAR = (4, 8, 16, 17, 32, 33, 48, 64, 80, 81, 96, 112)  # bits in which neighbours differ at most


def random_pieces(random: Random, family: Family, count: int, *, near: bool) -> Pieces:
    """The pieces that random prefixes cut; `near`: prefixes that have most of their bits in common."""
    base, end, starts = random.getrandbits(family.bits), 1 << family.bits, {0}
    for _ in range(count):
        length = min(random.choice(LENGTHS), family.bits)
        address = base ^ random.getrandbits(random.choice(NEAR)) if near else random.getrandbits(family.bits)
        first = address % end >> family.bits - length << family.bits - length
        starts |= {first, first + (1 << family.bits - length)} - {end}
    rows: list[int] = []
    for _ in starts:
        rows.append(random.choice([row for row in range(5) if not rows or row != rows[-1]]))
    return Pieces(sorted(starts), rows)


def asked(random: Random, family: Family, pieces: Pieces) -> Iterator[int]:
    """Addresses at the edges of the pieces, and a few bits away from them."""
    for start in pieces.starts:
        away = random.getrandbits(20) << random.randrange(family.bits)
        for address in (start, start - 1, start + 1, start ^ away):
            yield address % (1 << family.bits)


@pytest.mark.parametrize("near", [False, True], ids=["scattered", "near"])
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_table_names_the_row_of_every_address(family: Family, near: bool) -> None:
    random = Random(f"{family.bits} {near}")
    for count in (0, 1, 2, 10, 31, 32, 33, 100, 1000) * 4:
        pieces = random_pieces(random, family, count, near=near)
        offset = random.choice([0, 7, abi.BLOCK_CELLS - 2])
        cells, bits = table_cells(family, pieces, offset)
        reader = CellReader(array("Q", bytes(8 * offset)) + cells)
        row_of = reader.row4 if family is V4 else reader.row6
        for address in asked(random, family, pieces):
            expected = pieces.rows[bisect_right(pieces.starts, address) - 1]
            assert row_of(0, abi.cell(offset, bits), address) == expected, f"{address:x} among {count}"


def test_prefixes_of_providers_take_two_cells_each() -> None:
    starts = [0]
    for number in range(10_000):
        starts += [0x2A00 << 112 | number << 81, (0x2A00 << 112 | number << 81) + (1 << 80)]
    cells, bits = table_cells(V6, Pieces(starts, [number % 2 for number in range(len(starts))]), 0)
    assert bits == 0
    assert len(cells) <= 2 * 10_000 + 8
