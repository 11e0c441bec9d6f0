# SPDX-License-Identifier: Apache-2.0
"""Units that come and go while policies come and go: started before, started after, started a hundred times."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from beds.machine import Machine
from pybpf.map import Map
from system.service import UNIT, Service, eventually
from system.subjects import FREE, GOVERNED, Callers, journal_tells, policy

TIMES = 100
POLICY = policy("fickle", "{units: [fickle.service]}")


@pytest.fixture(scope="module")
def callers(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with Callers.on(machine, tmp_path_factory.mktemp("native")) as made:
        yield made


@pytest.fixture
def fickle(callers: Callers) -> Iterator[Callers]:
    """fickle.service, not running: it dials, stays, and dials when it is told."""
    callers.resident("fickle.service", "Restart=always", "RestartSec=0")
    yield callers
    callers.machine.run("systemctl", "stop", "fickle.service")


def labels(machine: Machine) -> int:
    """How many cgroups the kernel has a label of."""
    with Map.from_pin(machine.path("/sys/fs/bpf/cgnetd/maps/labels")) as found:
        return len(list(found.keys()))


def test_unit_that_ran_before_is_governed_from_its_next_call(service: Service, fickle: Callers) -> None:
    assert fickle.start("fickle.service") == FREE
    service.start()
    assert fickle.again("fickle.service") == FREE
    service.policy("fickle", POLICY)
    service.machine.run("cgnetctl", "reload")
    assert fickle.again("fickle.service") == GOVERNED
    service.machine.run("sh", "-c", "rm /etc/cgnetd/policy.d/fickle.yaml; cgnetctl reload")
    assert fickle.again("fickle.service") == FREE


def test_unit_is_governed_while_the_daemon_is_away_and_free_after_flush(service: Service, fickle: Callers) -> None:
    service.policy("fickle", POLICY)
    service.start()
    assert fickle.start("fickle.service") == GOVERNED
    service.machine.run("systemctl", "stop", UNIT)
    assert fickle.again("fickle.service") == GOVERNED
    assert fickle.start("fickle.service", "restart") == GOVERNED
    service.machine.run("cgnetctl", "flush")
    assert fickle.again("fickle.service") == FREE
    assert fickle.start("fickle.service", "restart") == FREE


def test_unit_that_systemd_restarts_is_governed(service: Service, fickle: Callers) -> None:
    service.policy("fickle", POLICY)
    service.start()
    before = len(fickle.lines("fickle.service"))
    fickle.machine.run("systemctl", "start", "fickle.service")
    for time_ in range(3):
        assert fickle.next("fickle.service", before + time_) == GOVERNED
        fickle.machine.run("systemctl", "kill", "--signal=KILL", "fickle.service")
    assert fickle.next("fickle.service", before + 3) == GOVERNED


def test_unit_that_is_started_a_hundred_times_is_governed_each_time(service: Service, callers: Callers) -> None:
    """Each time in a new cgroup, and what is known of the old ones goes with them."""
    service.policy("hundred", policy("hundred", "{units: [hundred.service]}"))
    service.start()
    callers.write("hundred.service", "[Unit]\nStartLimitIntervalSec=0\n", drop_in=True)
    callers.once("hundred.service", "RemainAfterExit=yes")
    machine = service.machine
    before = labels(machine)
    began_at = time.time()
    again = f"for i in $(seq {TIMES}); do systemctl restart hundred.service || exit 1; done"
    machine.run("sh", "-c", again)
    assert callers.lines("hundred.service") == [GOVERNED] * TIMES
    since = f"--since=@{began_at:.6f}"
    eventually(
        lambda: (
            len({one["CGNETD_CGROUP_ID"] for one in journal_tells(machine, "--unit=hundred.service", since)}) == TIMES
        ),
        "denials of a hundred cgroups",
    )
    machine.run("systemctl", "stop", "hundred.service")
    eventually(lambda: labels(machine) <= before + 1, "no label of what has gone")
    eventually(lambda: service.status()["policies"][0]["governed"] == 0, "nobody governed")
