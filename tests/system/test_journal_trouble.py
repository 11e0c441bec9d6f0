# SPDX-License-Identifier: Apache-2.0
"""A journald that hangs, dies, is stopped or has no room: the daemon lives, enforces, and tells what it can."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from cgnetd.service.events import Kind
from system.journaling import begin_storm, calls_of, of_kind, pid_of, put_storm, storm, suppressed, told, until
from system.service import UNIT, Service

JOURNALD = "systemd-journald.service"
SOCKETS = ("systemd-journald.socket", "systemd-journald-dev-log.socket")
HANGS_S = 15
CALLS = 200_000
PLACES = 2_000  # of four victims: all of them fit into limits.flows
SHUT = 2222
DENIED = "EHOSTUNREACH"
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: trouble}
spec:
  subject: {units: ["trouble*.service"]}
  egress: [{name: shut, action: deny, errno: EHOSTUNREACH}]
"""
WATCHED = "[Service]\nWatchdogSec=10s\n"  # shorter than journald hangs, longer than others keep the daemon from its CPU
_DROP_IN = "/run/systemd/system/cgnetd.service.d/watched.conf"
_SMALL = "/var/log/journal"


@pytest.fixture
def troubled(service: Service) -> Iterator[Service]:
    """Started, with a watchdog that has little patience."""
    machine = service.machine
    put_storm(machine)
    machine.write(_DROP_IN, WATCHED)
    machine.run("systemctl", "daemon-reload")
    service.policy("trouble", POLICY)
    service.settings("audit: {window: 1s}\nlimits: {reconcile_interval: 1s}\n")
    service.start()
    try:
        yield service
    finally:
        machine.run("systemctl", "kill", "--signal=SIGCONT", JOURNALD)
        machine.run("systemctl", "start", *SOCKETS, JOURNALD)
        machine.path(_DROP_IN).unlink()
        machine.run("systemctl", "daemon-reload")


def answers(service: Service) -> bool:
    """The control socket answers. The daemon says that it enforces."""
    return bool(service.status()["enforcing"])


def all_told(service: Service, unit: str, calls: int) -> None:
    """Every call of a unit comes to be in the journal, and none twice."""
    until(lambda: calls_of(told(service, unit)) >= calls, f"{calls} calls of {unit}")
    assert calls_of(told(service, unit)) == calls


def restarts(service: Service) -> str:
    return service.show("NRestarts")["NRestarts"]


def test_journald_that_hangs_holds_nobody_and_gets_everything_afterwards(troubled: Service) -> None:
    before = pid_of(troubled)
    troubled.machine.run("systemctl", "kill", "--signal=SIGSTOP", JOURNALD)
    until_s = time.monotonic() + HANGS_S
    running = [begin_storm(troubled, f"trouble-{n}.service", "connect", CALLS, PLACES) for n in range(4)]
    while time.monotonic() < until_s:  # it goes on hanging until both have their answer, however long that takes
        assert answers(troubled)
        assert troubled.dial("trouble.service", SHUT) == DENIED
    troubled.machine.run("systemctl", "kill", "--signal=SIGCONT", JOURNALD)
    for one in running:
        assert json.loads(one.communicate(timeout=300)[0])["calls"] == CALLS
    for n in range(4):
        all_told(troubled, f"trouble-{n}.service", CALLS)
    assert of_kind(troubled, Kind.EVENTS_LOST) == []
    assert suppressed(troubled) == []
    assert (pid_of(troubled), restarts(troubled)) == (before, "0")


def kill_journald(service: Service) -> None:
    """While the daemon tells nothing: what journald has read and not yet written goes with it, and nobody can know."""
    processes = service.machine.cgroup / "system.slice" / UNIT / "cgroup.procs"
    daemon = [int(pid) for pid in processes.read_text().split()]
    for pid in daemon:
        os.kill(pid, signal.SIGSTOP)
    try:
        service.machine.run("journalctl", "--sync")
        service.machine.run("systemctl", "kill", "--signal=SIGKILL", JOURNALD)
    finally:
        for pid in daemon:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["restart", "SIGKILL"])
def test_journald_that_starts_anew_in_the_middle_gets_everything(troubled: Service, how: str) -> None:
    unit = f"trouble-{how.lower()}.service"
    running = begin_storm(troubled, unit, "connect", 5 * CALLS, 20)
    while running.poll() is None:
        if how == "restart":
            troubled.machine.run("systemctl", "restart", JOURNALD)
        else:
            kill_journald(troubled)
        troubled.machine.run("systemctl", "reset-failed", JOURNALD, *SOCKETS)
        time.sleep(0.5)
    assert json.loads(running.communicate()[0])["calls"] == 5 * CALLS
    all_told(troubled, unit, 5 * CALLS)


def test_stopped_journald_gets_what_happened_meanwhile(troubled: Service) -> None:
    troubled.machine.run("systemctl", "stop", *SOCKETS, JOURNALD)
    assert troubled.machine.try_run("systemctl", "is-active", *SOCKETS, JOURNALD).stdout.split() == ["inactive"] * 3
    assert troubled.dial("trouble-stopped.service", SHUT) == DENIED
    assert answers(troubled)
    troubled.machine.run("systemctl", "start", *SOCKETS, JOURNALD)
    all_told(troubled, "trouble-stopped.service", 1)
    (entry,) = told(troubled, "trouble-stopped.service")
    assert entry["CGNETD_REMOTE_PORT"] == str(SHUT)


def test_journal_without_room_holds_nobody_and_goes_on_when_there_is_some(troubled: Service) -> None:
    machine = troubled.machine
    machine.run("mount", "-t", "tmpfs", "-o", "size=6m,mode=2755", "tmpfs", _SMALL)
    try:
        machine.run("journalctl", "--rotate")
        machine.try_run("sh", "-c", f"head -c 100m /dev/zero > {_SMALL}/full")
        assert storm(troubled, "trouble-full.service", "connect", CALLS, PLACES)["calls"] == CALLS
        assert troubled.dial("trouble.service", SHUT) == DENIED
        assert answers(troubled)
        assert restarts(troubled) == "0"
        machine.path(f"{_SMALL}/full").unlink()
        machine.run("journalctl", "--rotate")
        assert storm(troubled, "trouble-room.service", "connect", 1000, 1)["calls"] == 1000
        all_told(troubled, "trouble-room.service", 1000)
    finally:
        machine.run("umount", "--lazy", _SMALL)
        machine.run("systemctl", "restart", JOURNALD)
