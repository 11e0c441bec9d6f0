# SPDX-License-Identifier: Apache-2.0
"""How many records a storm of calls becomes, and that no call is uncounted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.raw import RawFlow
from cgnetd.datapath.record import FlowRecord, decode_flow
from cgnetd.service.audit import Sighting
from cgnetd.service.crowd import BURST, CROWDS_MAX, EACH, RATE, Crowd, Told
from cgnetd.service.events import Kind, Message

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


def flow(port: int, cgroup: int = 1, calls: int = 3, *, times: tuple[int, int] = (1, 2), pid: int = 42) -> Sighting:
    key = abi.FLOW_KEY.pack(7, 4, 4, 6, port, abi.HOOK_CONNECT, 4, abi.FLOW_DENIED, 1, 0, 0, 0, cgroup, 0, 0x0A000001)
    ids, local, ports, new = (cgroup, cgroup), (0, 0), (0, 0), (0, 0)
    value = abi.FLOW_VALUE.pack(calls, 0, 0, *times, *ids, *local, pid, 33, *ports, 0, 0, b"nginx", *new, b"")
    return Sighting(RawFlow(calls, key, value), "/system.slice/nginx.service", None)


def flows(ports: Iterable[int], cgroup: int = 1, calls: int = 3) -> list[Sighting]:
    return [flow(port, cgroup, calls) for port in ports]


def calls_of(told: Iterable[Told]) -> int:
    return sum(one.flow.calls for one in told if isinstance(one, Sighting))


def only(told: Sequence[Told]) -> FlowRecord:
    (one,) = told
    assert isinstance(one, Sighting)
    return decode_flow(one.flow)


def test_few_destinations_are_told_one_by_one(crowd: Crowd) -> None:
    given = flows(range(EACH))
    assert crowd.admit(given) == given
    assert (crowd.release(), crowd.waiting) == ([], False)


def test_many_destinations_become_one_event_with_all_calls(crowd: Crowd) -> None:
    told = crowd.admit(flows(range(EACH + 500)))
    assert len(told) == EACH
    rest = only(crowd.release())
    assert (rest.collected, rest.address, rest.port, rest.count) == (True, 0, 0, 3 * 500)
    assert (rest.cgroup_id, rest.rule_id, rest.denied, rest.errno) == (1, 4, True, 1)
    assert (crowd.release(), crowd.waiting) == ([], False)
    assert len(crowd.admit(flows(range(EACH)))) == EACH


def test_gathered_event_tells_the_first_and_the_last_time(crowd: Crowd) -> None:
    crowd.admit(flows(range(EACH)))
    crowd.admit([flow(7000, times=(5, 50), pid=1), flow(7001, times=(8, 40), pid=2)])
    rest = only(crowd.release())
    assert (rest.first_ns, rest.last_ns, rest.pid) == (5, 50, 2)


def test_flow_without_a_first_time_was_first_seen_when_it_was_last(crowd: Crowd) -> None:
    crowd.admit([flow(80, times=(0, 30)), flow(81, times=(0, 20))], gather=True)
    rest = only(crowd.release())
    assert (rest.first_ns, rest.last_ns) == (20, 30)


def test_what_the_kernel_collected_joins_its_crowd(crowd: Crowd) -> None:
    crowd.admit(flows((80, 81)), gather=True)
    seen = flow(82).flow
    crowd.admit([Sighting(seen._replace(key=seen.crowd), "", None)], gather=True)
    rest = only(crowd.release())
    assert (rest.collected, rest.count) == (True, 9)


def test_path_that_was_known_once_is_kept(crowd: Crowd) -> None:
    gone = flow(81)
    crowd.admit([flow(80), Sighting(gone.flow, "", None)], gather=True)
    (rest,) = crowd.release()
    assert isinstance(rest, Sighting)
    assert rest.path == "/system.slice/nginx.service"


def test_one_destination_that_waits_keeps_its_name(crowd: Crowd) -> None:
    crowd.admit(flows((80, 80)), gather=True)
    rest = only(crowd.release())
    assert (rest.collected, rest.port, rest.count) == (False, 80, 6)


def test_cgroups_do_not_crowd_each_other_out(crowd: Crowd) -> None:
    crowd.admit(flows(range(5000), cgroup=1))
    other = flows((80,), cgroup=2)
    assert crowd.admit(other) == other


def test_messages_always_pass(crowd: Crowd) -> None:
    crowd.admit(event for cgroup in range(2 * BURST) for event in flows((80,), cgroup))
    assert crowd.admit([LOST, *flows((80,), 3)], gather=True) == [LOST]


def test_storm_of_many_cgroups_stays_below_what_the_journal_takes(crowd: Crowd, clock: Clock) -> None:
    given = told = 0
    entries: list[tuple[float, int]] = []
    for second in range(45):
        clock.now = float(second)
        storm = [event for cgroup in range(130) for event in flows(range(12), cgroup, 1)]
        given += len(storm)
        records = crowd.admit(storm)
        records += crowd.overdue() if second % 10 else crowd.release()
        told += calls_of(records)
        entries.append((clock.now, len(records)))
    for begin, _ in entries:
        assert sum(n for at, n in entries if begin <= at < begin + JOURNAL_LIMIT[1]) <= BURST + RATE * JOURNAL_LIMIT[1]
    assert BURST + RATE * JOURNAL_LIMIT[1] < JOURNAL_LIMIT[0]
    assert told + calls_of(crowd.rest()) == given
    assert crowd.lost == 0


def test_what_finds_no_room_at_a_release_is_late_and_comes_first(crowd: Crowd, clock: Clock) -> None:
    crowd.admit(event for cgroup in range(BURST + 3) for event in flows((80,), cgroup))
    assert (crowd.release(), crowd.is_late) == ([], True)
    clock.now = 2 / RATE
    assert [one.flow.head.cgroup_id for one in crowd.overdue() if isinstance(one, Sighting)] == [BURST, BURST + 1]
    assert crowd.is_late
    clock.now = 100.0
    assert (len(crowd.overdue()), crowd.is_late) == (1, False)


def test_nothing_is_released_while_nobody_takes_it(crowd: Crowd) -> None:
    crowd.admit(flows((1, 2)), gather=True)
    assert (crowd.release(hold=True), crowd.is_late) == ([], True)
    assert calls_of(crowd.overdue()) == 6


def test_more_crowds_than_there_is_room_for_are_counted_as_lost(crowd: Crowd) -> None:
    crowd.admit((event for cgroup in range(CROWDS_MAX + 5) for event in flows((80,), cgroup)), gather=True)
    assert crowd.lost == 5 * 3
    assert calls_of(crowd.rest()) == CROWDS_MAX * 3
    assert not crowd.waiting
