# SPDX-License-Identifier: Apache-2.0
"""Port lists say of each port what its first rule says; what meets is counted before it is worked on."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.budget import Budget
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.ports import INDEXED_ENTRIES, LAST_PORT, PortLists, first_match
from cgnetd.datapath.rows import meetings
from cgnetd.errors import PolicyError
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action, Where
from support import classbench

FALLBACK = 1
EDGES = st.sampled_from([0, 1, 2, 3, 21, 22, 23, 1023, 1024, 65533, 65534, 65535])
RANGE = st.tuples(EDGES, EDGES).map(lambda ends: (min(ends), max(ends)))


def said(found: list[tuple[int, int]], port: int) -> int:
    return found[bisect_right([first for first, _ in found], port) - 1][1]


@given(ranges=st.lists(st.tuples(RANGE, st.integers(FALLBACK, 4)), max_size=8))
def test_a_port_list_names_the_lowest_reference_of_each_port(ranges: list[tuple[tuple[int, int], int]]) -> None:
    found = first_match([(first, last, reference) for (first, last), reference in ranges], FALLBACK)
    assert found[0][0] == 0
    assert all(one[0] < other[0] and one[1] != other[1] for one, other in pairwise(found))
    edges = {0, LAST_PORT, *(port for (first, last), _ in ranges for port in (first, last))}
    for port in {near for edge in edges for near in (edge - 1, edge, edge + 1) if 0 <= near <= LAST_PORT}:
        there = [reference for (first, last), reference in ranges if first <= port <= last]
        assert said(found, port) == min(there, default=FALLBACK)


def told(lists: PortLists, cell: int, port: int) -> int:
    """What a cell of a row says of a port (cgnetd/tables.h)."""
    if not abi.hi(cell) & abi.PORTS_RANGE and abi.lo(cell) & abi.PORTS_INDEX:
        cell = lists.cells[abi.hi(cell) + (port >> (cell & 15))]
    if not abi.lo(cell):
        return abi.hi(cell)
    entries = lists.cells[abi.hi(cell) : abi.hi(cell) + abi.lo(cell)]
    assert abi.hi(entries[0]) <= port
    return said([(abi.hi(entry), abi.lo(entry)) for entry in entries], port)


@given(
    ports=st.sets(st.one_of(EDGES, st.integers(0, LAST_PORT)), min_size=3, max_size=300),
    asked=st.integers(0, LAST_PORT),
)
def test_an_index_over_ports_says_what_its_list_says(ports: set[int], asked: int) -> None:
    lists = PortLists(Budget("p", Where("x.yaml", 1)))
    plain = lists.add([(port, port, FALLBACK + 1 + number) for number, port in enumerate(ports)], FALLBACK)
    cell = lists.indexed(plain)
    assert abi.lo(plain) >= INDEXED_ENTRIES or cell == plain
    assert abi.lo(plain) < INDEXED_ENTRIES or abi.lo(cell) & abi.PORTS_INDEX
    assert lists.indexed(plain) == cell
    for port in {near for edge in (*ports, asked) for near in (edge - 1, edge, edge + 1) if 0 <= near <= LAST_PORT}:
        assert told(lists, cell, port) == told(lists, plain, port)


@pytest.mark.parametrize("cell", [abi.cell(7, 0), abi.cell(abi.PORTS_RANGE | 7, 0x8000_FFFF)], ids=["all", "range"])
def test_what_is_no_long_list_needs_no_index(cell: int) -> None:
    lists = PortLists(Budget("p", Where("x.yaml", 1)))
    assert lists.indexed(cell) == cell
    assert not lists.cells


def test_meetings_are_the_groups_at_all_pieces() -> None:
    nested = [((start, 100 - start),) for start in range(4)]
    pieces = [range(start, 100 - start + 1) for start in range(4)]
    cuts = sorted({0, 1, 2, 3, 98, 99, 100, 101})
    there = sum(cut in piece for cut in cuts for piece in pieces)
    assert meetings(nested) == there


@pytest.mark.parametrize(
    "text", [classbench.nested_text(5_000), classbench.hosts_text(20_000)], ids=["nested", "hosts"]
)
def test_what_multiplies_is_refused_by_name(text: str) -> None:
    result = parse([Source("x.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set is not None
    with pytest.raises(PolicyError, match=r'policy "\w+" (has rules that overlap|needs more than)') as refused:
        compile_image(result.policy_set, default_action=Action.ALLOW, generation=1, limit_cells=1 << 15)
    assert (refused.value.problems[0].file, refused.value.problems[0].line) == ("x.yaml", 1)
