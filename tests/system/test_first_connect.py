# SPDX-License-Identifier: Apache-2.0
"""No unit that systemd starts makes its first call unjudged, whatever becomes of the daemon meanwhile."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from beds.machine import Machine
from support import native
from system import race
from system.service import UNIT, Service, eventually

DENIED = {
    "race-units": (errno.EHOSTUNREACH,) * len(race.EGRESS) + (errno.EACCES,) * len(race.BIND),
    "race-slices": (errno.ENETUNREACH,) * len(race.EGRESS) + (errno.EACCES,) * len(race.BIND),
}
LET_THROUGH = (errno.ECONNREFUSED, errno.ECONNREFUSED, 0, 0, 0, 0)  # nobody listens
OFTEN = 2  # how often at least it happens to the daemon while the units start
DROP_IN = """\
[Unit]
StartLimitIntervalSec=0
[Service]
RestartSec=20ms
"""
OTHER = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  subject: {{units: [{name}.service]}}
  tier: admin
  egress: [{{name: shut, action: deny, to: [192.0.2.0/24]}}]
"""


@pytest.fixture(scope="module")
def course(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the units, where systemd starts cgnetd as often as it likes."""
    if native.compiler() is None:
        pytest.skip("no C compiler; install one: apt-get install gcc")
    drop_in = f"/run/systemd/system/{UNIT}.d/often.conf"
    machine.write(drop_in, DROP_IN)
    race.install(machine, tmp_path_factory.mktemp("native"))
    yield machine
    machine.run("sh", "-c", f"rm {drop_in} /run/systemd/system/race-*; systemctl daemon-reload")


@contextmanager
def running(_: Service) -> Iterator[None]:
    yield


@contextmanager
def stopped(service: Service) -> Iterator[None]:
    service.machine.run("systemctl", "stop", UNIT)
    yield


@contextmanager
def asleep(service: Service) -> Iterator[None]:
    service.machine.run("systemctl", "kill", "--signal=SIGSTOP", UNIT)
    try:
        yield
    finally:
        service.machine.run("systemctl", "kill", "--signal=SIGCONT", UNIT)


@contextmanager
def restarted(service: Service) -> Iterator[None]:
    """Every other time with a generation to adopt, else with one to put in force."""
    change = changes(service)

    times = itertools.count()

    def restart() -> None:
        if next(times) % 2:
            next(change)
        service.machine.run("systemctl", "restart", UNIT)

    with again_and_again(restart):
        yield


@contextmanager
def reloaded(service: Service) -> Iterator[None]:
    change = changes(service)

    def reload() -> None:
        next(change)
        service.machine.run("systemctl", "reload", UNIT)

    with again_and_again(reload):
        yield


@contextmanager
def killed(service: Service) -> Iterator[None]:
    """At any moment of its start and of putting another generation in force."""
    chance = random.Random(1)
    change = changes(service)
    processes = service.machine.cgroup / "system.slice" / UNIT / "cgroup.procs"
    ended = threading.Event()

    def kill() -> None:
        while not (pids := pids_in(processes)):
            if ended.wait(0.01):
                return
        next(change)
        if ended.wait(chance.uniform(0, 2)):
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with again_and_again(kill):
        try:
            yield
        finally:
            ended.set()


def pids_in(processes: Path) -> list[int]:
    """Of a cgroup.procs; systemd removes the cgroup when the last one has ended."""
    try:
        return [int(pid) for pid in processes.read_text().split()]
    except OSError:
        return []


def changes(service: Service) -> Iterator[None]:
    """At every step a policy comes or goes. It changes all ids of what `race.POLICIES` says, for it stands
    before them, but not what a unit here gets.
    """
    for number in itertools.count(1):
        service.policy("other", OTHER.format(name=f"other-{number}") if number % 2 else "")
        yield


@contextmanager
def again_and_again(act: Callable[[], object]) -> Iterator[None]:
    """Beside what is done meanwhile; what `act` raises is raised at the end."""
    ended = threading.Event()
    done = 0
    errors: list[BaseException] = []

    def repeat() -> None:
        nonlocal done
        try:
            while not ended.is_set():
                act()
                done += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    for error in errors:
        raise error
    assert done >= OFTEN


State = Callable[[Service], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "state", [running, stopped, asleep, restarted, reloaded, killed], ids=lambda state: state.__name__
)
def test_first_calls_of_a_thousand_units_are_judged(course: Machine, service: Service, state: State) -> None:
    service.policy("race", race.POLICIES)
    service.start()
    with state(service):
        found = race.run(course)
    assert found == expected()
    eventually(lambda: is_up(service), "cgnetd, up again")
    assert counted(service) == calls()


def is_up(service: Service) -> bool:
    """Started unless it runs. It can have been killed without systemd having noticed: so it has to answer too."""
    run = service.machine.try_run
    return run("systemctl", "start", UNIT).returncode == 0 and run("cgnetctl", "status").returncode in (0, 1)


def expected() -> dict[str, Counter[tuple[int, ...]]]:
    """What the units of each form get."""
    return {
        form.name: Counter({DENIED[form.policy] if form.policy else LET_THROUGH: form.count * form.sets})
        for form in race.FORMS
    }


def calls() -> dict[tuple[str, str], int]:
    """How many are denied by each rule of each policy."""
    sets: Counter[str] = Counter()
    for form in race.FORMS:
        if form.policy:
            sets[form.policy] += form.count * form.sets
    kinds = {"calls": race.EGRESS, "binds": race.BIND}
    return {(policy, rule): count * len(kinds[rule]) for policy, count in sets.items() for rule in kinds}


def counted(service: Service) -> dict[tuple[str, str], int]:
    """The same, as the daemon tells it, which has no other reason for a denial."""
    told = service.status()
    assert not [name for name in ("unlabelled", "label_failed", "overflow", "corrupt") if told["stats"][name]]
    return {
        (one["policy"], one["rule"]): one["enforced"] for one in told["counters"] if one["policy"].startswith("race-")
    }
