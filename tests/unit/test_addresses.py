# SPDX-License-Identifier: Apache-2.0
"""Address tables, read back as the programs read them, against a plain search in the pieces that they were made of."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from random import Random

import pytest

from cgnetd.datapath import abi, tables
from cgnetd.datapath.addresses import V4, V6, Family, Pieces
from cgnetd.datapath.reader import LOW, CellReader
from cgnetd.datapath.tables import BARE_ENTRIES, MAX_INDEX_BITS, table_cells

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
        cells, node = table_cells(family, pieces, offset)
        reader = CellReader(array("Q", bytes(8 * offset)) + cells)
        for address in asked(random, family, pieces):
            expected = pieces.rows[bisect_right(pieces.starts, address) - 1]
            aligned = address << 128 - family.bits
            assert reader.row(0, node, aligned >> 64, aligned & LOW) == expected, f"{address:x} among {count}"


def spread(count: int, begin: int, step: int) -> list[int]:
    return [0, *(begin + number * step for number in range(count - 1))]


@pytest.mark.parametrize(
    ("starts", "rows", "dense"),
    [
        (spread(1000, (1 << 20) + 1, 1 << 22), 512, True),  # behind an index of nine bits
        (spread(1000, (1 << 20) + 1, 1 << 22), 513, False),
        (spread(70_000, 1 << 15, 61_001), 1 << 16, True),
        (spread(70_000, 1 << 15, 61_001), (1 << 16) + 1, False),
        (spread(3000, 10 << 24 | 5, 5), 1 << 16, True),  # 10.0.0.0/17: behind several indexes
        (spread(3000, 10 << 24 | 5, 5), 2999, True),
        (spread(17, 255 << 24, 1), 17, True),
        (spread(9, 1 << 16, 1 << 16), 9, True),  # without an index
        (spread(9, 1 << 16, 1 << 15), 9, False),
    ],
)
def test_lists_are_dense_where_keys_and_rows_fit(starts: list[int], rows: int, *, dense: bool) -> None:
    numbers = [(number * 7919 + rows - 1) % rows for number in range(len(starts))]
    cells, node = table_cells(V4, Pieces(starts, numbers), 3)
    found = set(list_forms(cells, node, 3))
    assert found == {dense}
    reader = CellReader(array("Q", bytes(8 * 3)) + cells)
    for number, start in enumerate(starts):
        following = starts[number + 1] if number + 1 < len(starts) else 1 << 32
        for address in (start, following - 1):
            assert reader.row(0, node, address << 32, 0) == numbers[number], f"{address:x}"


@pytest.mark.parametrize("count", [BARE_ENTRIES, 1000])
def test_lists_are_wide_where_the_order_of_bytes_is_another(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(tables, "_PACKS", False)
    starts = [number << 16 for number in range(count)]
    cells, node = table_cells(V4, Pieces(starts, [number % 3 for number in range(count)]), 0)
    assert not any(list_forms(cells, node, 0))
    reader = CellReader(cells)
    assert [reader.row(0, node, start << 32, 0) for start in starts] == [number % 3 for number in range(count)]


def list_forms(cells: array[int], node: int, offset: int) -> Iterator[bool]:
    """Whether they are dense, of all lists that indexes lead to."""
    size = abi.lo(node)
    if size & abi.NODE_INDEX:
        for at in range(abi.hi(node), abi.hi(node) + (1 << (size & 31))):
            yield from list_forms(cells, cells[at - offset], offset)
    elif size:
        yield bool(size & abi.NODE_DENSE)


def test_prefixes_longer_than_those_of_providers_take_three_cells_more() -> None:
    starts = [0]
    for number in range(10_000):
        begin = 0x2A00 << 112 | number << 81 | 0xBEEF << 64
        starts += [begin, begin + (1 << 64)]
    cells, _ = table_cells(V6, Pieces(starts, [number % 2 for number in range(len(starts))]), 0)
    assert len(cells) <= (3 + 3) * 10_000


def test_prefixes_of_providers_take_two_cells_each_and_their_index_one() -> None:
    starts = [0]
    for number in range(10_000):
        starts += [0x2A00 << 112 | number << 81, (0x2A00 << 112 | number << 81) + (1 << 80)]
    cells, _ = table_cells(V6, Pieces(starts, [number % 2 for number in range(len(starts))]), 0)
    assert len(cells) <= 3 * 10_000


@pytest.mark.parametrize(("count", "bits"), [(BARE_ENTRIES, 0), (33, 5), (1000, 9), (1 << 20, MAX_INDEX_BITS)])
def test_the_index_grows_with_the_table(count: int, bits: int) -> None:
    starts = [(number << 32) // count for number in range(count)]
    _, node = table_cells(V4, Pieces(starts, [n % 2 for n in range(count)]), 0)
    assert bool(abi.lo(node) & abi.NODE_INDEX) == bool(bits)
    if bits:
        assert abi.lo(node) & 31 == bits


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_no_list_is_long_where_pieces_are_even(family: Family) -> None:
    step, count = family.bits - 20, 1 << 20
    shifts = {V4: 0, V6: 3}  # all IPv6 pieces in one eighth of the addresses
    starts = [number << step - shifts[family] for number in range(0, count, 7)]
    cells, node = table_cells(family, Pieces(starts, [n % 2 for n in range(len(starts))]), 0)
    assert max(list_lengths(cells, node)) <= BARE_ENTRIES


def list_lengths(cells: array[int], node: int) -> Iterator[int]:
    """Of all lists that indexes lead to."""
    size = abi.lo(node)
    if size & abi.NODE_INDEX:
        for at in range(abi.hi(node), abi.hi(node) + (1 << (size & 31))):
            yield from list_lengths(cells, cells[at])
    elif size:
        yield size & (1 << (abi.DENSE_SHIFT if size & abi.NODE_DENSE else abi.NODE_SHIFT)) - 1
