# SPDX-License-Identifier: Apache-2.0
"""Flows counted anew for their cgroups, those above, and everybody."""

from __future__ import annotations

from cgnetd.kernel.layout import QUOTA_EVERYBODY, QUOTA_LEVELS
from cgnetd.kernel.quotas import Quota, recount


def below(*path: int) -> dict[int, Quota]:
    """What programs tell of cgroups that are below one another; the counts are wrong."""
    return {one: Quota(99, above) for one, above in zip(path, (QUOTA_EVERYBODY, *path), strict=False)}


def test_flow_counts_for_each_cgroup_above_and_for_everybody() -> None:
    told = below(1, 2, 3) | below(1, 4)
    assert recount({3: 5, 4: 2}, told) == {0: (7, 0), 1: (7, 0), 2: (5, 1), 3: (5, 2), 4: (2, 1)}


def test_own_flows_and_those_below_add_up() -> None:
    assert recount({1: 1, 2: 10}, below(1, 2)) == {0: (11, 0), 1: (11, 0), 2: (10, 1)}


def test_cgroup_that_nothing_is_told_of_counts_for_everybody() -> None:
    assert recount({7: 3}, {}) == {0: (3, 0), 7: (3, 0)}


def test_parent_that_nothing_is_told_of_counts_and_ends_the_way() -> None:
    assert recount({2: 3}, {2: Quota(1, 1)}) == {0: (3, 0), 1: (3, 0), 2: (3, 1)}


def test_nothing_left_is_nothing() -> None:
    assert recount({}, below(1, 2)) == {}


def test_circle_of_parents_counts_each_once() -> None:
    told = {1: Quota(1, 2), 2: Quota(1, 1)}
    assert recount({1: 4}, told) == {0: (4, 0), 1: (4, 2), 2: (4, 1)}


def test_way_is_no_longer_than_the_levels_and_the_cgroup_itself() -> None:
    path = range(1, 20)
    found = recount({19: 1}, below(*path))
    assert found.keys() == {0, *range(19 - QUOTA_LEVELS, 20)}
