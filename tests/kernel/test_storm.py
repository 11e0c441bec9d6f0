# SPDX-License-Identifier: Apache-2.0
"""A cgroup that is denied everywhere at once takes its share of the table of flows and no more: others are told of from
their first call on, and no call is uncounted."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.datapath.raw import RawFlow
from cgnetd.datapath.record import FlowRecord, decode
from cgnetd.kernel import layout
from cgnetd.kernel.maps import Capacity
from pybpf.batch import lookup_all
from support.enforce import Enforcement
from support.governed import Governed, eventually, governed
from support.sandbox import PrivateCgroup
from support.storms import address, counts, flows, image, lost, storm

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
MANY = 100_000
LONG_NS = 3600 * 10**9  # no window ends by itself
CROWD = 64  # CGN_CROWD_FLOWS
SHARE = 32  # CGN_CGROUP_SHARE
OTHER = "127.9.9.9"
HEAD = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: shut}
spec:
  subject: {cgroups: ["/storm", "/other", "/more*"]}
  egress:
"""
RULE = '    - {{action: deny, errno: EHOSTUNREACH, to: ["{to}"]}}\n'
POLICY = HEAD + RULE.format(to="127.0.0.0/8")


def connect(cgroup: PrivateCgroup, host: str) -> None:
    def call() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return made.connect_ex((host, 9))

    assert cgroup.call(call) != 0


@pytest.fixture
def storming(private_cgroup: PrivateCgroup) -> PrivateCgroup:
    return private_cgroup.child("storm")


@pytest.fixture
def other(private_cgroup: PrivateCgroup) -> PrivateCgroup:
    return private_cgroup.child("other")


@pytest.fixture
def enforcement(
    private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path, request: pytest.FixtureRequest
) -> Iterator[Enforcement]:
    for name in ("storm", "other"):
        private_cgroup.child(name)
    capacity = Capacity(flows=getattr(request, "param", Capacity().flows))
    with Enforcement(private_cgroup.path, pin_dir, objects, capacity) as made:
        made.store.set_window(LONG_NS)
        yield made


def test_storm_of_one_cgroup_leaves_the_first_call_of_another_its_address(
    enforcement: Enforcement, storming: PrivateCgroup, other: PrivateCgroup
) -> None:
    enforcement.load(image(POLICY))
    storm(storming, 0, MANY)
    connect(other, OTHER)
    (first,) = (one for one in flows(enforcement, other) if not one.collected)
    assert (first.address_text, first.port, first.count) == (OTHER, 9, 1)
    mine = flows(enforcement, storming)
    (rest,) = (one for one in mine if one.collected)
    assert len(mine) == CROWD + 1
    assert {one.address_text for one in mine if not one.collected} == {address(n) for n in range(CROWD)}
    assert (rest.count, sum(one.count for one in mine), lost(enforcement)) == (MANY - CROWD, MANY, 0)


def test_kernel_collects_by_what_the_daemon_calls_a_crowd(enforcement: Enforcement, storming: PrivateCgroup) -> None:
    enforcement.load(image(POLICY))
    storm(storming, 0, 2 * CROWD)
    found = [RawFlow(0, key, value) for key, value in lookup_all(enforcement.store.maps["flows"])]
    (collected,) = {one.crowd for one in found}
    assert sum(one.key == collected for one in found) == 1


def test_new_destinations_are_told_one_by_one_again_in_the_next_window(
    enforcement: Enforcement, storming: PrivateCgroup
) -> None:
    enforcement.load(image(POLICY))
    storm(storming, 0, 2 * CROWD)
    enforcement.store.set_window(1)  # that of before is over
    storm(storming, 5000, 1)
    assert address(5000) in {one.address_text for one in flows(enforcement, storming)}
    assert sum(one.count for one in flows(enforcement, storming)) == 2 * CROWD + 1


@pytest.mark.parametrize("enforcement", [1024], indirect=True)
def test_cgroup_has_its_share_of_the_table_however_many_windows_pass(
    enforcement: Enforcement, storming: PrivateCgroup
) -> None:
    enforcement.load(image(POLICY))
    enforcement.store.set_window(1)
    storm(storming, 0, 500)
    mine = flows(enforcement, storming)
    assert len(mine) == 1024 // SHARE
    assert (sum(one.count for one in mine), lost(enforcement)) == (500, 0)


@pytest.mark.parametrize("enforcement", [1024], indirect=True)
def test_cgroup_that_many_rules_deny_leaves_room_for_others(
    enforcement: Enforcement, storming: PrivateCgroup, other: PrivateCgroup
) -> None:
    rules = 600
    enforcement.load(image(HEAD + "".join(RULE.format(to=address(n)) for n in range(rules))))
    storm(storming, 0, rules)
    kinds = Counter(one.collected for one in flows(enforcement, storming))
    share = 1024 // SHARE
    assert (kinds[False], kinds[True]) == (share // 2, share + share // 2)
    told = sum(one.count for one in flows(enforcement, storming))
    assert (told > 0, told + lost(enforcement)) == (True, rules)
    connect(other, address(7))
    assert [one.address_text for one in flows(enforcement, other) if not one.collected] == [address(7)]


@pytest.mark.parametrize("enforcement", [256], indirect=True)
def test_storm_of_many_cgroups_leaves_room_for_first_calls_and_loses_none(
    enforcement: Enforcement, private_cgroup: PrivateCgroup, other: PrivateCgroup
) -> None:
    enforcement.load(image(POLICY))
    crowd = [private_cgroup.child(f"more{n}") for n in range(54)]
    for cgroup in crowd[:24]:
        storm(cgroup, 0, 20)
    connect(other, OTHER)
    assert [one.address_text for one in flows(enforcement, other) if not one.collected] == [OTHER]
    for cgroup in crowd[24:]:
        storm(cgroup, 0, 20)
    told = [sum(one.count for one in flows(enforcement, cgroup)) for cgroup in crowd]
    assert (told, lost(enforcement)) == ([20] * len(crowd), 0)


def test_flows_that_are_taken_out_give_their_room_back(
    enforcement: Enforcement, storming: PrivateCgroup, other: PrivateCgroup
) -> None:
    enforcement.load(image(POLICY))
    storm(storming, 0, MANY)
    before_ns = max(one.last_ns for one in flows(enforcement, storming)) + 1
    connect(other, OTHER)
    assert counts(enforcement) == {storming.id: CROWD + 1, other.id: 2, 0: CROWD + 3}
    taken = [decode(record) for record in enforcement.store.drain_flows(before_ns)]
    assert flows(enforcement, storming) == []
    assert counts(enforcement) == {other.id: 2, 0: 2}
    assert {one.cgroup_id for one in taken if isinstance(one, FlowRecord)} == {storming.id}
    storm(storming, 7000, CROWD)
    assert len(flows(enforcement, storming)) == CROWD + 1
    assert counts(enforcement) == {storming.id: CROWD + 1, other.id: 2, 0: CROWD + 3}
    enforcement.store.drain_flows(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    assert counts(enforcement) == {}


def test_quota_that_is_wrong_is_set_right(
    enforcement: Enforcement, storming: PrivateCgroup, other: PrivateCgroup
) -> None:
    enforcement.load(image(POLICY))
    connect(storming, OTHER)
    enforcement.store.maps["quotas"].update(layout.QUOTA_KEY.pack(storming.id), layout.QUOTA.pack(10**6, other.id))
    connect(storming, address(1))
    assert {one.address_text for one in flows(enforcement, storming) if not one.collected} == {OTHER}
    enforcement.store.drain_flows(idle_before_ns=0)
    assert counts(enforcement) == {storming.id: 2, 0: 2}
    connect(storming, address(2))
    assert {one.address_text for one in flows(enforcement, storming) if not one.collected} == {OTHER, address(2)}


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        found.daemon.write_policy("app.yaml", POLICY)
        found.start("--set", "audit.window=1s")
        yield found


def test_daemon_tells_of_the_other_cgroup_and_of_every_call(
    app: Governed, storming: PrivateCgroup, other: PrivateCgroup
) -> None:
    storm(storming, 0, MANY)
    connect(other, OTHER)

    def told(path: str) -> list[dict[str, Any]]:
        return [one for one in app.records("flow") if one["cgroup"] == path]

    eventually(lambda: sum(one["count"] for one in told("/storm")) == MANY, "every call")
    (first,) = eventually(lambda: told("/other"), "the other cgroup's call")
    assert (first["remote_address"], first["collected"], first["count"]) == (OTHER, False, 1)
    stats = app.daemon.ask("status")["stats"]
    assert (stats["lost"], stats["sink_dropped"], stats["undecodable"]) == (0, 0, 0)
