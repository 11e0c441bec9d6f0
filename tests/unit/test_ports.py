# SPDX-License-Identifier: Apache-2.0
"""Port lists say of each port what its first rule says; what meets is counted before it is worked on."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.ports import LAST_PORT, first_match
from cgnetd.datapath.rows import meetings
from cgnetd.errors import PolicyError
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
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
