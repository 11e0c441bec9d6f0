# SPDX-License-Identifier: Apache-2.0
"""Flows that a worker is to close: what is asked of it, and what is told when it answers, or does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from live_refs import backend, live, service

from cgnetd.service.backends import Backends
from cgnetd.service.closer import RemoteCloser, Work
from cgnetd.service.closing import Held, doom_of
from cgnetd.service.events import Message
from cgnetd.service.health import Board, Place, places, targets
from cgnetd.service.worker import SOCKETS, Fields, greeting, pack, unpack

LIVE = live(service("db", backend("10.0.0.1"), backend("10.0.0.2"), close_tcp=True, key=7))
FIRST, SECOND = places(LIVE)
PINS = Path("/sys/fs/bpf/cgnetd")


def dead(place: Place) -> Work:
    """What follows from the death of a backend."""
    board = Board()
    board.follow(targets(LIVE))
    target = place.target
    assert target is not None
    while board.pulse(target).alive:
        board.report(target, "Connection refused", 1)
    return lambda close: Backends(close).changed(LIVE, board, target)


def holding(*flows: tuple[Place, str]) -> Callable[[], Held | None]:
    """There are these flows, and no others."""
    found = [doom_of(*one) for one in flows]
    return lambda: Held(frozenset((one.protocol, one.service_key, one.family, one.address, one.port) for one in found))


def run(
    path: Path, answers: Sequence[bytes], held: Callable[[], Held | None], *works: Work
) -> tuple[list[Fields], list[str]]:
    """What was asked of a worker that gives these answers, and what was told."""
    asked: list[Fields] = []
    told: list[Message] = []
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(SOCKETS))
        asked.append(unpack(await reader.readline()))
        writer.write(left.pop(0))
        writer.close()

    async def play() -> None:
        async with await asyncio.start_unix_server(answer, path):
            closer = RemoteCloser(path, PINS, held, told.extend)
            for work in works:
                closer.do(work)
            while len(told) < len(works):
                await asyncio.sleep(0.01)
            await closer.close()

    asyncio.run(asyncio.wait_for(play(), 30))
    return asked, [message.text for message in told]


def test_flows_that_there_are_are_closed_and_counted(tmp_path: Path) -> None:
    held = holding((FIRST, "tcp"), (FIRST, "udp"))
    asked, told = run(tmp_path / "s", [pack({"closed": [2, 1]})], held, dead(FIRST))
    dooms = [list(vars_of(FIRST, "udp")), list(vars_of(FIRST, "tcp"))]
    assert asked == [{"close": dooms, "pins": str(PINS)}]
    assert told == ["backend 10.0.0.1:80 of service db is dead: Connection refused, 2 UDP flows and 1 TCP flow closed"]


def vars_of(place: Place, protocol: str) -> tuple[int, ...]:
    doom = doom_of(place, protocol)
    return doom.family, doom.address, doom.port, doom.service_key, doom.protocol


def test_nobody_is_asked_when_there_are_no_flows(tmp_path: Path) -> None:
    asked, told = run(tmp_path / "s", [], holding(), dead(FIRST))
    assert (asked, told) == ([], ["backend 10.0.0.1:80 of service db is dead: Connection refused"])


def test_all_are_asked_for_when_nobody_knows_which_there_are(tmp_path: Path) -> None:
    asked, _ = run(tmp_path / "s", [pack({"closed": [0, 0]})], lambda: None, dead(FIRST))
    assert [len(one["close"]) for one in asked] == [2]


def test_what_happened_is_told_in_its_order(tmp_path: Path) -> None:
    held = holding((FIRST, "tcp"))
    _, told = run(tmp_path / "s", [pack({"closed": [1]})], held, dead(FIRST), dead(SECOND))
    assert [text.split()[1] for text in told] == ["10.0.0.1:80", "10.0.0.2:80"]


def test_flows_that_cannot_be_closed_are_told_with_the_reason(tmp_path: Path) -> None:
    held = holding((FIRST, "tcp"), (FIRST, "udp"))
    _, told = run(tmp_path / "s", [pack({"closed": [3, "the kernel said no"]})], held, dead(FIRST))
    assert told == [
        "backend 10.0.0.1:80 of service db is dead: Connection refused, 3 UDP flows closed; its tcp flows could not be "
        "closed: the kernel said no"
    ]


def test_worker_that_fails_is_asked_once_more(tmp_path: Path) -> None:
    asked, told = run(tmp_path / "s", [b"", pack({"closed": [1]})], holding((FIRST, "tcp")), dead(FIRST))
    assert len(asked) == 2
    assert told[0].endswith("1 TCP flow closed")


def test_answer_that_is_none_is_told(tmp_path: Path) -> None:
    answers = [pack({"closed": [1, 2, 3]}), pack({"closed": "all"})]
    _, told = run(tmp_path / "s", answers, holding((FIRST, "tcp")), dead(FIRST))
    assert told[0].endswith("its tcp flows could not be closed: hear worker sockets: what it says is no answer")


def test_what_comes_before_the_loop_runs_is_done_when_it_does(tmp_path: Path) -> None:
    told: list[Message] = []
    closer = RemoteCloser(tmp_path / "nobody", PINS, holding((FIRST, "tcp")), told.extend)
    closer.do(dead(FIRST))
    assert not told

    async def later() -> None:
        closer.resume()
        while not told:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(later(), 30))
    assert "its tcp flows could not be closed: reach worker sockets" in told[0].text


def test_what_is_not_done_when_the_daemon_stops_is_told(tmp_path: Path) -> None:
    told: list[Message] = []
    closer = RemoteCloser(tmp_path / "nobody", PINS, holding((FIRST, "tcp")), told.extend)
    closer.do(dead(FIRST))
    asyncio.run(closer.close())
    assert told[0].text.endswith("its tcp flows could not be closed: cgnetd stops")
