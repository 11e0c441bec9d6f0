# SPDX-License-Identifier: Apache-2.0
"""Who may make cgroups of his own gets no more of the table of flows by them: those beside him are told of, at each
level of the tree."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.kernel.maps import Capacity
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup, remove_cgroup
from support.storms import address, all_flows, counts, dial, flows, image, lost, quotas, storm, told, wander

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
ROOM = 512  # flows
POLICY = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: shut}
spec:
  subject: {cgroups: ["/many", "/other", "/plain/*"]}
  egress:
    - {action: deny, to: ["127.0.0.0/8"]}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: sent}
spec:
  subject: {cgroups: ["/sent"]}
  egress:
    - {action: redirect, to: [192.0.2.1, 192.0.2.2, 192.0.2.3], redirect: {to: ["127.77.0.1:46053"]}, log: true}
"""
UDP = (socket.AF_INET, socket.SOCK_DGRAM)
SERVER = ("127.77.0.1", 46053)
ASKED = [(f"192.0.2.{number}", 53) for number in (1, 2, 3)]
SOME = 10  # destinations
ALWAYS = 3  # of them a cgroup has told in any case, and the others in one: CGN_FIRST_FLOWS
HOGS = ["many", "many/user", "many/user/session", "many/user/session/app"]


@pytest.fixture
def other(private_cgroup: PrivateCgroup) -> PrivateCgroup:
    return private_cgroup.child("other")


@pytest.fixture
def enforcement(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Enforcement]:
    with Enforcement(private_cgroup.path, pin_dir, objects, Capacity(flows=ROOM)) as made:
        made.store.set_window(3600 * 10**9)
        made.load(image(POLICY))
        yield made


def crowd(hog: PrivateCgroup, count: int = ROOM) -> list[PrivateCgroup]:
    return [hog.child(str(number)) for number in range(count)]


def addresses(count: int) -> set[str]:
    return {address(number) for number in range(count)}


def test_many_cgroups_of_one_subtree_leave_those_beside_it_room(
    enforcement: Enforcement, private_cgroup: PrivateCgroup, other: PrivateCgroup
) -> None:
    wander(crowd(private_cgroup.child("many")), 5)
    assert len(all_flows(enforcement)) < ROOM // 8 * 7
    before = lost(enforcement)
    assert before > 0
    storm(other, 0, SOME)
    assert sum(one.count for one in flows(enforcement, other)) == SOME
    assert len(told(enforcement, other)) >= ALWAYS
    assert lost(enforcement) == before


def test_single_destinations_of_many_cgroups_do_not_take_those_of_others(
    enforcement: Enforcement, private_cgroup: PrivateCgroup, other: PrivateCgroup
) -> None:
    wander(crowd(private_cgroup.child("many"), ROOM // 16), 40)
    assert len(all_flows(enforcement)) > ROOM // 2
    storm(other, 0, SOME)
    assert told(enforcement, other) == addresses(SOME)


@pytest.mark.parametrize("hog", HOGS)
def test_first_destinations_beside_a_subtree_are_told_at_each_level(
    enforcement: Enforcement, private_cgroup: PrivateCgroup, hog: str
) -> None:
    wander(crowd(private_cgroup.child(hog)), 5)
    before = lost(enforcement)
    assert before > 0
    victim = private_cgroup.child(str(Path(hog).parent / "other"))
    storm(victim, 0, SOME)
    assert addresses(ALWAYS) <= told(enforcement, victim)
    assert (sum(one.count for one in flows(enforcement, victim)), lost(enforcement)) == (SOME, before)


def answers() -> list[tuple[bytes, tuple[str, int]]]:
    """What one socket is answered that asks each of ASKED, with who seems to answer."""
    with socket.socket(*UDP) as server, socket.socket(*UDP) as client:
        server.bind(SERVER)
        found = []
        for host, port in ASKED:
            client.sendto(host.encode(), (host, port))
            question, sender = server.recvfrom(64)
            server.sendto(question, sender)
            found.append(client.recvfrom(64))
        return found


def test_redirected_datagrams_of_others_are_answered_and_told(
    enforcement: Enforcement, private_cgroup: PrivateCgroup
) -> None:
    wander(crowd(private_cgroup.child("many")), 5)
    assert lost(enforcement) > 0
    sent = private_cgroup.child("sent")
    assert sent.call(answers) == [(host.encode(), (host, port)) for host, port in ASKED]
    assert told(enforcement, sent) == {host for host, _ in ASKED}
    assert all(one.rewritten for one in flows(enforcement, sent))


def test_cgroups_that_are_gone_count_for_what_they_were_in(
    enforcement: Enforcement, private_cgroup: PrivateCgroup, other: PrivateCgroup
) -> None:
    many = private_cgroup.child("many")
    for _ in range(3):
        made = crowd(many.child("again"), ROOM // 2)
        wander(made, 5)
        remove_cgroup(many.path / "again")
        enforcement.store.drain_flows(idle_before_ns=0)
        assert counts(enforcement)[many.id] == counts(enforcement)[0] == len(all_flows(enforcement))
    assert len(all_flows(enforcement)) > ROOM // 2
    storm(other, 0, SOME)
    assert addresses(ALWAYS) <= told(enforcement, other)


def test_refused_calls_of_ever_new_cgroups_leave_nothing_behind(
    enforcement: Enforcement, private_cgroup: PrivateCgroup
) -> None:
    many = private_cgroup.child("many")
    wander(crowd(many), 5)
    before = quotas(enforcement)
    wander([many.child(f"late{number}") for number in range(64)], 5)
    assert quotas(enforcement) == before


def test_flow_of_a_socket_counts_for_those_above_the_calling_task(
    enforcement: Enforcement, private_cgroup: PrivateCgroup
) -> None:
    makers, caller = crowd(private_cgroup.child("plain"), 8), private_cgroup.child("free/caller")

    def work() -> list[int]:
        made = []
        for cgroup in makers:
            cgroup.enter()
            made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        caller.enter()
        return [one.connect_ex((address(0), 9)) for one in made]

    assert all(caller.call(work))
    found = quotas(enforcement)
    free = caller.path.parent.stat().st_ino
    assert {found[cgroup.id] for cgroup in makers} == {(2, caller.id)}
    assert (found[caller.id], found[free]) == ((16, free), (16, 0))
    enforcement.store.drain_flows(idle_before_ns=0)
    assert quotas(enforcement) == found


def test_counts_are_those_of_every_level_and_no_deeper_one(
    enforcement: Enforcement, private_cgroup: PrivateCgroup
) -> None:
    names = ["many", "a", "b", "c", "d", "e"]
    path = [private_cgroup.child("/".join(names[: depth + 1])) for depth in range(len(names))]
    assert path[-1].call(lambda: dial(0, 1)) == 1
    ids = [cgroup.id for cgroup in path]
    chain = [0, *ids[:4], ids[-1]]
    expected = {one: (2, above) for one, above in zip(chain[1:], chain, strict=False)}
    assert quotas(enforcement) == {0: (2, 0), **expected}
    enforcement.store.drain_flows(idle_before_ns=0)
    assert quotas(enforcement) == {0: (2, 0), **expected}
