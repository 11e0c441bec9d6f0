# SPDX-License-Identifier: Apache-2.0
"""Address tables, read back as the programs read them, against a plain search in the pieces that they were made of."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from random import Random

import pytest

from bench import rival_tables
from bench.prefixes import random_prefixes
from cgnetd.datapath import abi, runs, tables
from cgnetd.datapath.addresses import V4, V6, Family, Pieces
from cgnetd.datapath.reader import LOW, CellReader
from cgnetd.datapath.tables import BARE_ENTRIES, MAX_INDEX_BITS, SPANS_FROM, table_cells
from support.table_forms import list_kinds

LENGTHS = (0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 95, 96, 97, 111, 112, 113, 127, 128)
NEAR = (4, 8, 16, 17, 32, 33, 48, 64, 80, 81, 96, 112)  # bits in which neighbours differ at most


def random_pieces(random: Random, family: Family, count: int, *, near: bool, apart: bool) -> Pieces:
    """The pieces that random prefixes cut; `near`: prefixes that have most of their bits in common; `apart`: between
    those with other rows most have the first one."""
    base, end, starts = random.getrandbits(family.bits), 1 << family.bits, {0}
    for _ in range(count):
        length = min(random.choice(LENGTHS), family.bits)
        address = base ^ random.getrandbits(random.choice(NEAR)) if near else random.getrandbits(family.bits)
        first = address % end >> family.bits - length << family.bits - length
        starts |= {first, first + (1 << family.bits - length)} - {end}
    rows: list[int] = []
    for _ in starts:
        first = apart and rows and rows[-1] and random.random() < 0.9
        rows.append(0 if first else random.choice([row for row in range(5) if not rows or row != rows[-1]]))
    return Pieces(sorted(starts), rows)


def asked(random: Random, family: Family, pieces: Pieces) -> Iterator[int]:
    """Addresses at the edges of the pieces, and a few bits away from them."""
    for start in pieces.starts:
        away = random.getrandbits(20) << random.randrange(family.bits)
        for address in (start, start - 1, start + 1, start ^ away):
            yield address % (1 << family.bits)


@pytest.mark.parametrize("spans_from", [0, SPANS_FROM], ids=["spans", "both"])
@pytest.mark.parametrize("apart", [False, True], ids=["touching", "apart"])
@pytest.mark.parametrize("near", [False, True], ids=["scattered", "near"])
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_table_names_the_row_of_every_address(
    monkeypatch: pytest.MonkeyPatch, family: Family, near: bool, apart: bool, spans_from: int
) -> None:
    monkeypatch.setattr(tables, "SPANS_FROM", spans_from)
    random = Random(f"{family.bits} {near} {apart}")
    for count in (0, 1, 2, 10, 31, 32, 33, 100, 1000) * 2:
        pieces = random_pieces(random, family, count, near=near, apart=apart)
        offset = random.choice([0, 7, abi.BLOCK_CELLS - 2])
        cells, node = table_cells(family, pieces, offset)
        reader = CellReader(array("Q", bytes(8 * offset)) + cells)
        for address in asked(random, family, pieces):
            expected = pieces.rows[bisect_right(pieces.starts, address) - 1]
            aligned = address << 128 - family.bits
            assert reader.row(0, node, aligned >> 64, aligned & LOW) == expected, f"{address:x} among {count}"


def prefixes(family: Family, count: int, begin: int, length: int, every: int, *, rows: int = 2) -> Pieces:
    """Prefixes of one length from `begin` on, each the first of `every`; the last one has the row `rows - 1`."""
    size, pieces = 1 << family.bits - length, Pieces([0], [0])
    for number in range(count):
        start = begin + number * every * size
        pieces.starts.extend([start, start + size])
        pieces.rows.extend([1 + (number + rows - 1 - count) % (rows - 1), 0])
    return pieces


@pytest.mark.parametrize(
    ("pieces", "kinds"),
    [
        (prefixes(V4, 1000, 1 << 20, 24, 1 << 14, rows=1 << 8), {"dense"}),  # behind an index of nine bits
        (prefixes(V4, 1000, 1 << 20, 24, 1 << 14, rows=(1 << 8) + 1), {"spans"}),
        (prefixes(V4, 70_000, 1 << 15, 32, 61_001, rows=1 << 15), {"dense", "inline"}),  # of 16 bits
        (prefixes(V4, 70_000, 1 << 15, 32, 61_001, rows=(1 << 15) + 1), {"spans"}),
        (prefixes(V4, 3000, 10 << 24, 32, 5, rows=1 << 15), {"dense"}),  # 10.0.0.0/17: several indexes
        (prefixes(V4, SPANS_FROM // 2 - 1, 1 << 16, 24, 2), {"starts"}),
        (prefixes(V4, SPANS_FROM // 2, 1 << 16, 24, 2), {"dense"}),
        (
            Pieces([0, *(n << 12 | 5 for n in range(1, 3000))], [n % 2 for n in range(3000)]),
            {"starts"},
        ),  # aligned to nothing
        (Pieces([n << 16 for n in range(3000)], [n % 9 for n in range(3000)]), {"dense"}),  # few in between
        (prefixes(V6, 1000, 0x20010DB8 << 96, 48, 3), {"spans"}),
        (prefixes(V6, 1000, 0x20010DB8 << 96 | 0xBEEF << 64, 64, 1 << 17), {"spans", "inline"}),
        (prefixes(V6, 1000, 0x20010DB8 << 96 | 0xBEEF << 64, 64, 1 << 17, rows=1 << 15), {"spans", "inline"}),
    ],
)
def test_lists_take_the_least_room(pieces: Pieces, kinds: set[str]) -> None:
    family = V6 if pieces.starts[-1] >> 32 else V4
    cells, node = table_cells(family, pieces, 3)
    cells = array("Q", bytes(8 * 3)) + cells
    assert set(list_kinds(cells, 0, node)) == kinds
    reader = CellReader(cells)
    beyond = [*pieces.starts[1:], 1 << family.bits]
    for start, end, row in zip(pieces.starts, beyond, pieces.rows, strict=True):
        for address in (start, end - 1):
            aligned = address << 128 - family.bits
            assert reader.row(0, node, aligned >> 64, aligned & LOW) == row, f"{address:x}"


@pytest.mark.parametrize("count", [2, BARE_ENTRIES, 1000])
def test_lists_are_wide_where_the_order_of_bytes_is_another(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(runs, "_PACKS", False)
    monkeypatch.setattr(tables, "SPANS_FROM", 0)
    pieces = prefixes(V4, count, 1 << 24, 16, 3)
    cells, node = table_cells(V4, pieces, 0)
    assert set(list_kinds(cells, 0, node)) == {"spans"}
    reader = CellReader(cells)
    assert [reader.row(0, node, start << 32, 0) for start in pieces.starts] == pieces.rows


@pytest.mark.parametrize(
    ("family", "length", "bytes_each"),
    [(V4, 24, 12), (V4, 32, 12), (V6, 48, 16), (V6, 64, 24), (V6, 128, 56)],
)
def test_prefixes_that_lie_apart_take_little(family: Family, length: int, bytes_each: int) -> None:
    begin = 0x2A00 << 112 | 0xBEEF if family is V6 else 1 << 24
    begin = begin >> family.bits - length << family.bits - length
    every = max(2, 1 << length - 46) if family is V6 else 3
    cells, _ = table_cells(family, prefixes(family, 10_000, begin, length, every), 0)
    assert 8 * len(cells) <= bytes_each * 10_000


@pytest.mark.parametrize("count", [1000, 10_000, 100_000])
@pytest.mark.parametrize(("family", "version"), [(V4, 4), (V6, 6)], ids=["v4", "v6"])
def test_random_prefixes_take_16_bytes_at_most_index_and_all(family: Family, version: int, count: int) -> None:
    starts, answers = rival_tables.pieces(random_prefixes(version, count))
    cells, _ = table_cells(family, Pieces(starts, answers), 0)
    assert 8 * len(cells) <= 16 * count


def index_bits(cells: array[int], node: int) -> int:
    assert abi.lo(node) & abi.NODE_INDEX
    return abi.lo(node) & 31


@pytest.mark.parametrize(("count", "bits"), [(33, 5), (1000, 9), (1 << 17, MAX_INDEX_BITS)])
def test_the_index_grows_with_the_table(count: int, bits: int) -> None:
    """With as many starts, or spans."""
    starts = [(number << 32) // count for number in range(count)]
    assert index_bits(*table_cells(V4, Pieces(starts, [n % 2 + 1 for n in range(count)]), 0)) == bits
    if count >= SPANS_FROM:
        assert index_bits(*table_cells(V4, prefixes(V4, count, 0, 24, (1 << 24) // count), 0)) == bits


def test_few_entries_have_no_index() -> None:
    starts = [number << 27 for number in range(BARE_ENTRIES)]
    _, node = table_cells(V4, Pieces(starts, [number % 2 for number in range(BARE_ENTRIES)]), 0)
    assert abi.lo(node) == BARE_ENTRIES


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
