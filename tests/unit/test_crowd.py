# SPDX-License-Identifier: Apache-2.0
"""How many records a storm of calls becomes, and that no call is uncounted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest

from cgnetd.service.crowd import BURST, CROWDS_MAX, EACH, RATE, Crowd
from cgnetd.service.events import FlowEvent, Kind, Message, Record
from unit.test_events import EVENT

LOST = Message(Kind.EVENTS_LOST, 1, "some")
JOURNAL_LIMIT = (10_000, 30)  # entries in seconds, by default


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def crowd(clock: Clock) -> Crowd:
    return Crowd(clock)


def events(ports: Iterable[int], cgroup: int = 1, count: int = 3) -> list[FlowEvent]:
    return [dataclasses.replace(EVENT, remote_port=port, cgroup_id=cgroup, count=count) for port in ports]


def calls(records: Iterable[Record]) -> int:
    return sum(record.count for record in records if isinstance(record, FlowEvent))


def test_few_destinations_are_told_one_by_one(crowd: Crowd) -> None:
    given = events(range(EACH))
    assert crowd.admit(given) == given
    assert (crowd.release(), crowd.waiting) == ([], False)


def test_many_destinations_become_one_event_with_all_calls(crowd: Crowd) -> None:
    told = crowd.admit(events(range(EACH + 500)))
    assert len(told) == EACH
    (rest,) = crowd.release()
    assert isinstance(rest, FlowEvent)
    assert (rest.collected, rest.remote_address, rest.remote_port, rest.count) == (True, "", 0, 3 * 500)
    assert rest.sentence().startswith("denied nginx.service connect tcp many destinations (EPERM) by policy web rule")
    assert (crowd.release(), crowd.waiting) == ([], False)
    assert len(crowd.admit(events(range(EACH)))) == EACH


def test_gathered_event_tells_the_first_and_the_last_time(crowd: Crowd) -> None:
    crowd.admit(events(range(EACH)))
    early, late = events((7000, 7001))
    early = dataclasses.replace(early, first_ns=5, last_ns=50, pid=1)
    late = dataclasses.replace(late, first_ns=8, last_ns=40, pid=2)
    crowd.admit([early, late])
    (rest,) = crowd.release()
    assert isinstance(rest, FlowEvent)
    assert (rest.first_ns, rest.last_ns, rest.pid) == (5, 50, 2)


def test_one_destination_that_waits_keeps_its_name(crowd: Crowd) -> None:
    crowd.admit(events((80, 80)), gather=True)
    (rest,) = crowd.release()
    assert isinstance(rest, FlowEvent)
    assert (rest.collected, rest.remote_port, rest.count) == (False, 80, 6)


def test_cgroups_do_not_crowd_each_other_out(crowd: Crowd) -> None:
    crowd.admit(events(range(5000), cgroup=1))
    other = events((80,), cgroup=2)
    assert crowd.admit(other) == other


def test_messages_always_pass(crowd: Crowd) -> None:
    crowd.admit(event for cgroup in range(2 * BURST) for event in events((80,), cgroup))
    assert crowd.admit([LOST, *events((80,), 3)], gather=True) == [LOST]


def test_storm_of_many_cgroups_stays_below_what_the_journal_takes(crowd: Crowd, clock: Clock) -> None:
    given = told = 0
    entries: list[tuple[float, int]] = []
    for second in range(45):
        clock.now = float(second)
        storm = [event for cgroup in range(130) for event in events(range(12), cgroup, 1)]
        given += len(storm)
        records = crowd.admit(storm)
        records += crowd.overdue() if second % 10 else crowd.release()
        told += calls(records)
        entries.append((clock.now, len(records)))
    for begin, _ in entries:
        assert sum(n for at, n in entries if begin <= at < begin + JOURNAL_LIMIT[1]) <= BURST + RATE * JOURNAL_LIMIT[1]
    assert BURST + RATE * JOURNAL_LIMIT[1] < JOURNAL_LIMIT[0]
    assert told + calls(crowd.rest()) == given
    assert crowd.lost == 0


def test_what_finds_no_room_at_a_release_is_late_and_comes_first(crowd: Crowd, clock: Clock) -> None:
    crowd.admit(event for cgroup in range(BURST + 3) for event in events((80,), cgroup))
    assert (crowd.release(), crowd.is_late) == ([], True)
    clock.now = 2 / RATE
    assert [one.cgroup_id for one in crowd.overdue() if isinstance(one, FlowEvent)] == [BURST, BURST + 1]
    assert crowd.is_late
    clock.now = 100.0
    assert (len(crowd.overdue()), crowd.is_late) == (1, False)


def test_nothing_is_released_while_nobody_takes_it(crowd: Crowd) -> None:
    crowd.admit(events((1, 2)), gather=True)
    assert (crowd.release(hold=True), crowd.is_late) == ([], True)
    assert calls(crowd.overdue()) == 6


def test_more_crowds_than_there_is_room_for_are_counted_as_lost(crowd: Crowd) -> None:
    crowd.admit((event for cgroup in range(CROWDS_MAX + 5) for event in events((80,), cgroup)), gather=True)
    assert crowd.lost == 5 * 3
    assert calls(crowd.rest()) == CROWDS_MAX * 3
    assert not crowd.waiting
