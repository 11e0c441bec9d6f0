# SPDX-License-Identifier: Apache-2.0
"""What follows from backends that die, come back and leave, and from devices and addresses that are missing."""

from __future__ import annotations

import pytest
from live_refs import backend, live, service

from cgnetd.datapath.live import Live
from cgnetd.errors import KernelError
from cgnetd.service.backends import Backends
from cgnetd.service.events import Kind
from cgnetd.service.health import Board, Place, Target, targets
from cgnetd.service.waiting import Missing, Watchman

ONE, TWO = backend("10.0.0.1"), backend("10.0.0.2")


class Flows:
    """Counts what is closed instead of closing it."""

    def __init__(self, count: int = 0, error: KernelError | None = None) -> None:
        self.count = count
        self.error = error
        self.closed: list[tuple[str, str, str]] = []

    def __call__(self, place: Place, protocol: str) -> int:
        if self.error is not None:
            raise self.error
        self.closed.append((place.service.name, place.backend.address, protocol))
        return self.count


def target_of(known: Live, address: str) -> Target:
    (found,) = [target for target in targets(known) if target.address == address]
    return found


def board_of(known: Live, *dead: str) -> Board:
    board = Board()
    board.follow(targets(known))
    for address in dead:
        while board.pulse(target_of(known, address)).alive:
            board.report(target_of(known, address), "Connection refused", 1)
    return board


def test_dead_backend_is_told_with_why_and_its_connected_udp_flows_are_closed() -> None:
    known, flows = live(service("db", ONE, TWO)), Flows(count=2)
    (told,) = Backends(flows).changed(known, board_of(known, "10.0.0.1"), target_of(known, "10.0.0.1"))
    assert told.kind is Kind.BACKEND_DOWN
    assert told.text == "backend 10.0.0.1:80 of service db is dead: Connection refused, 2 UDP flows closed"
    assert told.fields == {
        "service": "db",
        "address": "10.0.0.1",
        "port": 80,
        "error": "Connection refused",
        "closed": {"udp": 2},
    }
    assert flows.closed == [("db", "10.0.0.1", "udp")]


def test_tcp_flows_are_closed_only_where_that_is_asked_for() -> None:
    known, flows = live(service("db", ONE, close_tcp=True)), Flows()
    Backends(flows).changed(known, board_of(known, "10.0.0.1"), target_of(known, "10.0.0.1"))
    assert [protocol for *_, protocol in flows.closed] == ["udp", "tcp"]


def test_last_backend_takes_its_service_down() -> None:
    known = live(service("db", ONE, TWO), service("web", ONE))
    board = board_of(known, "10.0.0.1")
    told = Backends(Flows()).changed(known, board, target_of(known, "10.0.0.1"))
    assert [(one.kind, one.fields["service"]) for one in told] == [
        (Kind.BACKEND_DOWN, "db"),
        (Kind.BACKEND_DOWN, "web"),
        (Kind.SERVICE_DOWN, "web"),
    ]
    assert told[-1].text == "no backend of service web is alive: calls get ECONNREFUSED"


def test_service_whose_backends_die_together_is_told_once() -> None:
    known = live(service("db", ONE, TWO))
    board, closing = board_of(known, "10.0.0.1", "10.0.0.2"), Backends(Flows())
    one, two = (target_of(known, address) for address in ("10.0.0.1", "10.0.0.2"))
    assert [told.kind for told in closing.changed(known, board, one, {two})] == [Kind.BACKEND_DOWN]
    assert [told.kind for told in closing.changed(known, board, two)] == [Kind.BACKEND_DOWN, Kind.SERVICE_DOWN]


def test_backend_that_comes_back_is_told_and_nothing_is_closed() -> None:
    known, flows = live(service("db", ONE, TWO)), Flows()
    board = board_of(known, "10.0.0.1")
    while not board.report(target_of(known, "10.0.0.1"), "", 2):
        pass
    (told,) = Backends(flows).changed(known, board, target_of(known, "10.0.0.1"))
    assert (told.kind, told.text) == (Kind.BACKEND_UP, "backend 10.0.0.1:80 of service db is alive")
    assert flows.closed == []


def test_flows_that_cannot_be_closed_are_told() -> None:
    known = live(service("db", ONE, TWO))
    failing = Backends(Flows(error=KernelError("close flows: no")))
    (told,) = failing.changed(known, board_of(known, "10.0.0.1"), target_of(known, "10.0.0.1"))
    assert told.text.endswith("; its udp flows could not be closed: close flows: no")
    (left,) = failing.removed(known, live(service("db", TWO)))
    assert (left.kind, "could not be closed" in left.text) == (Kind.FLOWS_CLOSED, True)


def test_backend_that_a_reload_removed_keeps_no_flows() -> None:
    before = live(service("db", ONE, TWO), service("web", ONE), service("gone", TWO))
    now = live(service("db", TWO), service("web", ONE))
    flows = Flows(count=1)
    told = Backends(flows).removed(before, now)
    assert flows.closed == [("db", "10.0.0.1", "udp"), ("gone", "10.0.0.2", "udp")]
    assert [one.text for one in told] == [
        "backend 10.0.0.1:80 of service db was removed, 1 UDP flow closed",
        "backend 10.0.0.2:80 of service gone was removed, 1 UDP flow closed",
    ]


def test_removed_backend_without_flows_is_not_worth_a_message() -> None:
    assert Backends(Flows()).removed(live(service("db", ONE)), live()) == []


def test_backend_whose_port_is_kept_is_named_without_one() -> None:
    known = live(service("db", backend("10.0.0.1", port=0)))
    (told,) = Backends(Flows(count=1)).removed(known, live())
    assert told.text.startswith("backend 10.0.0.1 of service db was removed")


@pytest.mark.parametrize(
    ("now", "kinds"),
    [
        (Missing(("wg0",)), [Kind.DEVICE_MISSING]),
        (Missing(("wg0",), ("10.0.0.7",)), [Kind.DEVICE_MISSING, Kind.SOURCE_MISSING]),
        (Missing(), []),
    ],
)
def test_what_is_missing_is_told_once(now: Missing, kinds: list[Kind]) -> None:
    known, watchman = live(devices=["wg0"], sources=["10.0.0.7"]), Watchman()
    assert [told.kind for told in watchman.messages(known, now)] == kinds
    assert list(watchman.messages(known, now)) == []


def test_what_came_is_told_if_it_is_still_spoken_of() -> None:
    watchman = Watchman()
    lacking = Missing(("wg0", "wg1"), ("10.0.0.7", "10.0.0.8"))
    before = live(devices=["wg0", "wg1"], sources=["10.0.0.7", "10.0.0.8"])
    assert len(list(watchman.messages(before, lacking))) == 4
    found = list(watchman.messages(live(devices=["wg0"], sources=["10.0.0.7"]), Missing()))
    assert [(told.kind, told.text) for told in found] == [
        (Kind.DEVICE_FOUND, "device wg0 exists now"),
        (Kind.SOURCE_FOUND, "the host has source address 10.0.0.7 now"),
    ]


def test_what_is_missing_reads_as_something_waited_for() -> None:
    assert Missing(("wg0",), ("10.0.0.7",)).texts == ("waiting for device wg0", "waiting for source address 10.0.0.7")
