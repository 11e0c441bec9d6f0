# SPDX-License-Identifier: Apache-2.0
"""Live cells: what each one is, and choices that change no more than they must."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.live import BackendRef, FamilyRef, HealthRef, Live, ServiceRef, choices, live_from

WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=12)


def backends(*weights: int) -> tuple[BackendRef, ...]:
    return tuple(BackendRef(f"10.0.0.{number}", 80, weight, 0) for number, weight in enumerate(weights))


def two_services() -> Live:
    """A device, two sources, a service with both families and one with IPv6 alone."""
    first = 3
    v4 = FamilyRef(backends(1, 3), first, first + abi.CHOICES)
    v6 = FamilyRef(backends(1), v4.states + 2, v4.states + 2 + abi.CHOICES)
    other = FamilyRef(backends(1, 1, 1), v6.states + 1, v6.states + 1 + abi.CHOICES)
    health = HealthRef(2_000_000_000, 500_000_000, 2, 3)
    services = (
        ServiceRef("db", 7, 111, False, health, v4, v6),
        ServiceRef("web", 8, 113, True, None, None, other),
    )
    return Live(("wg0",), ("10.0.0.7", "2001:db8::7"), services)


def test_cells_stand_where_the_numbers_say() -> None:
    live = two_services()
    dead = ("db", 4, 0)
    cells = live.cells(
        device_index={"wg0": 42, "lo": 1},
        present={"2001:db8::7", "127.0.0.1"},
        alive=lambda *backend: backend != dead,
    )
    assert len(cells) == live.size == 3 + 3 * abi.CHOICES + 6
    assert (live.device_cell(0), live.source_cell(0), live.source_cell(1)) == (0, 1, 2)
    assert list(cells[:3]) == [42, 0, 1]
    db, web = live.services
    assert db.v4 is not None
    assert web.v6 is not None
    assert set(cells[db.v4.choices : db.v4.choices + abi.CHOICES]) == {2}
    assert list(cells[db.v4.states : db.v4.states + 2]) == [0, 1]
    assert set(cells[web.v6.choices : web.v6.choices + abi.CHOICES]) == {1, 2, 3}
    assert list(cells[web.v6.states :]) == [1, 1, 1]
    assert [family for family, _ in web.families()] == [6]


def test_a_device_that_is_not_there_is_zero() -> None:
    assert list(Live(("wg0",)).cells(device_index={}, present=(), alive=lambda *_: True)) == [0]


def test_nothing_needs_no_cells() -> None:
    assert Live().size == len(Live().cells(device_index={}, present=(), alive=lambda *_: True)) == 0


def test_live_survives_its_lists() -> None:
    live = two_services()
    assert live_from(json.loads(json.dumps(live))) == live


@pytest.mark.parametrize(
    "fields", [[], [[], []], [[], [], [["db"]]], [[], [], [["db", "x", 1, False, None, None, None]]]]
)
def test_lists_that_are_no_live_cells_are_refused(fields: list[object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        live_from(fields)


@given(WEIGHTS)
def test_shares_are_in_proportion_and_nobody_alive_is_left_out(weights: list[int]) -> None:
    shares = Counter(choices(weights, [True] * len(weights)))
    total = sum(weights)
    for number, weight in enumerate(weights):
        fair = abi.CHOICES * weight / total
        assert shares[number + 1] >= 1
        assert abs(shares[number + 1] - fair) <= len(weights) + 1


@given(WEIGHTS, st.data())
def test_only_the_cells_of_who_dies_change_and_come_back(weights: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(weights))))
    alive = [True] * len(weights)
    states = [choices(weights, alive)]
    for dying in order:
        alive[dying] = False
        states.append(choices(weights, alive))
    for dying, (before, after) in zip(order, pairwise(states), strict=True):
        changed = {was for was, now in zip(before, after, strict=True) if was != now}
        assert changed == {dying + 1}
        assert dying + 1 not in set(after)
    assert not any(states[-1])
    assert states[0] == choices(weights, [True] * len(weights))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 10), min_size=3, max_size=5))
def test_the_heirs_of_a_dead_one_share_about_by_weight(weights: list[int]) -> None:
    shares = Counter(choices(weights, [False] + [True] * (len(weights) - 1)))
    rest = sum(weights[1:])
    for number, weight in enumerate(weights[1:], 2):
        assert abs(shares[number] / abi.CHOICES - weight / rest) < 0.08


@pytest.mark.parametrize("weights", [[1] * abi.BACKENDS_MAX, [1] + [100] * (abi.BACKENDS_MAX - 1)])
def test_as_many_backends_as_there_can_be_each_have_a_cell(weights: list[int]) -> None:
    assert set(choices(weights, [True] * len(weights))) == set(range(1, len(weights) + 1))
    every_other = [number % 2 == 0 for number in range(len(weights))]
    assert set(choices(weights, every_other)) == set(range(1, len(weights) + 1, 2))
