# SPDX-License-Identifier: Apache-2.0
"""Which backends are alive: falls, rises, what is kept over reloads, and real probes on loopback."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live_refs import backend, live, service

from cgnetd.service.health import Board, Target, places, targets
from cgnetd.service.prober import Prober, probe

TARGET = Target("10.0.0.1", 80, 2 * 10**9, 5 * 10**8, fall=2, rise=3)
OTHER = Target("10.0.0.2", 80, 2 * 10**9, 5 * 10**8, fall=2, rise=3)


@pytest.fixture
def board() -> Board:
    made = Board()
    made.follow([TARGET])
    return made


def changes(board: Board, *errors: str) -> list[int]:
    """After which of these probes the target changed."""
    return [number for number, error in enumerate(errors) if board.report(TARGET, error, 1000 + number)]


def test_backend_dies_after_as_many_failures_in_a_row_as_it_takes(board: Board) -> None:
    assert changes(board, "no", "", "no", "", "no", "no", "no") == [5]
    pulse = board.pulse(TARGET)
    assert (pulse.alive, pulse.since_ns, pulse.error) == (False, 1005, "no")


def test_dead_backend_comes_back_after_successes_in_a_row(board: Board) -> None:
    assert changes(board, "no", "no", "", "", "no", "", "", "", "") == [1, 7]
    assert board.pulse(TARGET).alive
    assert board.pulse(TARGET).error == ""


def test_new_backend_is_alive_until_probes_say_otherwise(board: Board) -> None:
    board.follow([TARGET, OTHER])
    assert board.pulse(OTHER).alive
    assert not board.report(OTHER, "no", 1)


def test_backend_that_stays_keeps_its_pulse_and_another_begins_anew(board: Board) -> None:
    changes(board, "no", "no")
    board.follow([TARGET, OTHER])
    assert not board.pulse(TARGET).alive
    board.follow([OTHER])
    board.follow([TARGET, OTHER])
    assert board.pulse(TARGET).alive


def test_backend_keeps_its_pulse_when_only_settings_change(board: Board) -> None:
    changes(board, "no", "no")
    slower = Target(TARGET.address, TARGET.port, 9 * 10**9, TARGET.timeout_ns, fall=1, rise=1)
    board.follow([slower])
    assert (board.pulse(slower).alive, board.pulse(slower).error) == (False, "no")
    assert board.report(slower, "", 5)


def test_first_pulse_is_what_is_told_of_before() -> None:
    board = Board()
    board.follow([TARGET, OTHER], was_alive=lambda target: target != OTHER)
    assert [board.pulse(target).alive for target in (TARGET, OTHER)] == [True, False]
    board.follow([TARGET, OTHER], was_alive=lambda _: True)
    assert not board.pulse(OTHER).alive


def test_result_for_what_nobody_follows_changes_nothing(board: Board) -> None:
    assert [board.report(OTHER, "no", 1) for _ in range(3)] == [False] * 3
    assert board.targets == (TARGET,)


def test_services_that_agree_share_a_target() -> None:
    shared = backend("10.0.0.1")
    known = live(service("a", shared), service("b", shared, backend("10.0.0.2")))
    assert {target.address for target in targets(known)} == {"10.0.0.1", "10.0.0.2"}
    assert len(targets(known)) == 2
    assert [(place.service.name, place.index) for place in places(known)] == [("a", 0), ("b", 0), ("b", 1)]


def test_backend_without_health_or_port_is_not_probed() -> None:
    assert targets(live(service("a", backend("10.0.0.1"), health=None))) == set()
    assert targets(live(service("a", backend("10.0.0.1", probe_port=0)))) == set()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def port_of(made: socket.socket) -> int:
    port: int = made.getsockname()[1]
    return port


def test_probe_tells_who_answers_and_who_refuses(listener: socket.socket) -> None:
    port = port_of(listener)
    assert asyncio.run(probe("127.0.0.1", port, 10**9)) == ""
    listener.close()
    assert asyncio.run(probe("127.0.0.1", port, 10**9)) == "Connection refused"


def test_probe_of_ipv6_works_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as made:
        assert asyncio.run(probe("::1", port_of(made), 10**9)) == ""


def test_probe_gives_up_on_who_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = port_of(full)
        waiting = []
        for _ in range(3):  # more than the backlog holds: the next SYN is not answered
            made = socket.socket()
            made.setblocking(False)
            made.connect_ex(("127.0.0.1", port))
            waiting.append(made)
        assert asyncio.run(probe("127.0.0.1", port, 10**8)) == "no answer within 100 ms"
        for made in waiting:
            made.close()


def test_prober_probes_what_it_is_told_at_its_pace_and_nothing_else(listener: socket.socket) -> None:
    quick = Target("127.0.0.1", port_of(listener), 2 * 10**7, 10**8, 1, 1)
    nobody = Target("127.0.0.1", port_of(listener), 10**7, 10**8, 1, 1)
    seen: list[tuple[Target, str]] = []

    async def watch() -> None:
        prober = Prober(lambda target, error: seen.append((target, error)))
        prober.follow([quick, nobody])
        prober.follow([quick])
        while len(seen) < 5:
            await asyncio.sleep(0.005)
        await prober.close()
        count = len(seen)
        await asyncio.sleep(0.1)
        assert len(seen) == count

    asyncio.run(watch())
    assert set(seen) == {(quick, "")}


def test_probes_do_not_hold_each_other_up(listener: socket.socket) -> None:
    """One target that never answers, within its long timeout, and one that does."""
    alive = Target("127.0.0.1", port_of(listener), 10**7, 10**8, 1, 1)
    seen: list[Target] = []

    async def watch(silent_port: int) -> None:
        silent = Target("127.0.0.1", silent_port, 10**7, 30 * 10**9, 1, 1)
        prober = Prober(lambda target, _error: seen.append(target))
        prober.follow([silent, alive])
        while len(seen) < 10:
            await asyncio.sleep(0.005)
        await prober.close()

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for made in waiting:
            made.setblocking(False)
            made.connect_ex(("127.0.0.1", port_of(full)))
        asyncio.run(asyncio.wait_for(watch(port_of(full)), 120))
        for made in waiting:
            made.close()
    assert set(seen) == {alive}


@contextmanager
def few_descriptors() -> Iterator[int]:
    """Little more than twice as many as are open; the limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 2 * max(map(int, os.listdir("/proc/self/fd"))) + 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_probes_of_many_who_do_not_answer_leave_descriptors_for_others() -> None:
    async def watch(port: int, limit: int) -> int:
        seen: set[Target] = set()
        prober = Prober(lambda target, _error: seen.add(target))
        addresses = [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(limit)]
        prober.follow(Target(address, port, 2 * 10**9, 10**9, 1, 1) for address in addresses)
        most = 0
        while len(seen) < limit:
            most = max(most, len(os.listdir("/proc/self/fd")))
            await asyncio.sleep(0.01)
        await prober.close()
        return most

    with socket.create_server(("0.0.0.0", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for made in waiting:
            made.setblocking(False)
            made.connect_ex(("127.0.0.1", port_of(full)))
        before = len(os.listdir("/proc/self/fd"))
        with few_descriptors() as limit:
            most = asyncio.run(asyncio.wait_for(watch(port_of(full), limit), 120))
        for made in waiting:
            made.close()
    assert before + limit // 4 < most < limit - 20
