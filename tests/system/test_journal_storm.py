# SPDX-License-Identifier: Apache-2.0
"""Storms of denied calls in the journal: few records, exact counts, nothing thrown away by journald."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest

from beds.machine import Machine
from cgnetd.service.crowd import EACH
from cgnetd.service.events import Kind
from system.journaling import (
    begin_storm,
    calls_of,
    cpu_s,
    of_kind,
    pid_of,
    put_storm,
    storm,
    suppressed,
    told,
    until,
)
from system.service import Service

MILLION = 1_000_000
MANY = 10_000
VICTIMS = 100
CPU_BOUND_S = 20.0  # of some minutes on a host that others keep busy; what was measured is printed
DENIED = str(errno.EHOSTUNREACH)
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: storm}
spec:
  subject: {units: ["storm-*.service"]}
  egress: [{name: shut, action: deny, errno: EHOSTUNREACH}]
"""


@pytest.fixture
def stormy(service: Service) -> Iterator[Service]:
    put_storm(service.machine)
    service.policy("storm", POLICY)
    service.settings("audit: {window: 2s}\n")
    service.start()
    yield service
    assert suppressed(service) == []


def windows(entries: list[dict[str, Any]]) -> int:
    """In how many seconds something was told: no fewer than the windows that ended."""
    return len([second for second, _ in groupby(entries, key=lambda one: int(one["__REALTIME_TIMESTAMP"]) // 10**6)])


@pytest.mark.parametrize("call", ["connect", "sendto"])
def test_million_calls_to_one_place_are_a_handful_of_records(stormy: Service, call: str) -> None:
    unit = f"storm-one-{call}.service"
    before_s = cpu_s(stormy)
    assert storm(stormy, unit, call, MILLION, 1) == {"calls": MILLION, DENIED: MILLION}
    entries = until(lambda: (found := told(stormy, unit)) and calls_of(found) >= MILLION and found, "all calls")
    assert calls_of(entries) == MILLION
    # At first sight, one a window, and what was left: by the clock, for others may slow the storm down.
    assert len(entries) <= 2 + windows(entries)
    assert {one["CGNETD_HOOK"] for one in entries} == {"sendmsg" if call == "sendto" else "connect"}
    used_s = cpu_s(stormy) - before_s
    print(f"{MILLION} calls of {call} to one place: {len(entries)} records, {used_s:.2f} s of processor time")
    assert used_s < CPU_BOUND_S


def test_million_calls_to_ten_thousand_places_are_few_records(stormy: Service) -> None:
    unit = "storm-many.service"
    before_s = cpu_s(stormy)
    assert storm(stormy, unit, "connect", MILLION, MANY) == {"calls": MILLION, DENIED: MILLION}
    entries = until(lambda: (found := told(stormy, unit)) and calls_of(found) >= MILLION and found, "all calls")
    assert calls_of(entries) == MILLION
    alone = [one for one in entries if one["CGNETD_COLLECTED"] == "false"]
    together = [one for one in entries if one["CGNETD_COLLECTED"] == "true"]
    assert together
    assert not [one for one in together if "CGNETD_REMOTE_ADDRESS" in one]
    assert len(alone) <= EACH * (len(together) + 1)
    assert len(together) <= 2 + windows(entries)
    assert of_kind(stormy, Kind.EVENTS_LOST) == []
    used_s = cpu_s(stormy) - before_s
    print(f"{MILLION} calls to {MANY} places: {len(entries)} records, {used_s:.2f} s of processor time")
    assert used_s < CPU_BOUND_S


def test_hundred_victims_at_once_are_each_told_of_in_full(stormy: Service) -> None:
    units = [f"storm-{number}.service" for number in range(VICTIMS)]
    each = MILLION // VICTIMS
    with_words = [begin_storm(stormy, unit, "connect", each, 50) for unit in units]
    for running in with_words:
        words, _ = running.communicate(timeout=300)
        assert json.loads(words) == {"calls": each, DENIED: each}
    until(lambda: sum(calls_of(told(stormy, unit)) for unit in units[-3:]) >= 3 * each, "the last ones")
    entries = until(
        lambda: (
            (found := stormy.journal("CGNETD_POLICY=storm", f"_PID={pid_of(stormy)}"))
            and calls_of(found) >= MILLION
            and found
        ),
        "all calls",
    )
    sums = {unit: calls_of([one for one in entries if one["CGNETD_UNIT"] == unit]) for unit in units}
    assert sums == dict.fromkeys(units, each)
    assert calls_of(told(stormy, units[0])) == each
    print(f"{VICTIMS} victims with {each} calls to 50 places: {len(entries)} records")


def test_followers_are_told_the_same_as_the_journal(stormy: Service, machine: Machine) -> None:
    unit = "storm-followed.service"
    assert storm(stormy, unit, "sendto", MILLION // 10, MANY)["calls"] == MILLION // 10
    entries = until(lambda: (found := told(stormy, unit)) and calls_of(found) >= MILLION // 10 and found, "all calls")
    lines = machine.run("cgnetctl", "events", "--json").splitlines()
    events = [event for line in lines if (event := json.loads(line)).get("unit") == unit]
    assert sum(event["count"] for event in events) == MILLION // 10
    assert sorted(event["time"] for event in events) == sorted(one["CGNETD_TIME"] for one in entries)
