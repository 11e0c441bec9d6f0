# SPDX-License-Identifier: Apache-2.0
"""A daemon that hangs is started again by the service manager, while what is in force stays in force."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from system.service import UNIT, Service

SHUT = 2222
DENIED = "EHOSTUNREACH"
PATIENCE_S = 90.0
HUNG = "/run/hung"
WATCHDOG_S = 5  # at half of it the daemon gives a sign of life: others may keep it from its CPU for as long again
DROP_IN = f"/run/systemd/system/{UNIT}.d/watchdog.conf"
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: victim}}
spec:
  subject: {{units: [victim.service]}}
  egress: [{{name: rest, action: deny, errno: {DENIED}}}]
"""
# A file system whose server never answers, mounted where only one process sees it: its next look there never ends, and
# nothing but SIGKILL ends that process.
HANG = f"""\
import ctypes, os, signal, sys
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
if libc.setns(os.open(f"/proc/{{sys.argv[1]}}/ns/mnt", os.O_RDONLY), 0):
    raise OSError(ctypes.get_errno(), "setns")
options = f"fd={{fd}},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"hang", b"{HUNG}", b"fuse", 0, options):
    raise OSError(ctypes.get_errno(), "mount")
signal.pause()
"""


@pytest.fixture
def watched(service: Service) -> Iterator[Service]:
    """Running, with a watchdog that wants a sign of life every few seconds."""
    run = service.machine.run
    service.machine.write(DROP_IN, f"[Service]\nWatchdogSec={WATCHDOG_S}s\n")
    run("systemctl", "daemon-reload")
    run("mkdir", "-p", HUNG)
    service.policy("victim", POLICY)
    service.settings(f"policy_dirs: [{HUNG}, /etc/cgnetd/policy.d]\n")
    service.start()
    yield service
    service.machine.path(DROP_IN).unlink()
    run("systemctl", "daemon-reload")


def patiently(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.2)


def restarts(service: Service) -> int:
    return int(service.show("NRestarts")["NRestarts"])


def is_back(service: Service) -> bool:
    return service.show("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}


def timeouts(service: Service) -> int:
    """How often the watchdog spoke, in all tests so far."""
    told = service.journal("_PID=1", f"UNIT={UNIT}")
    return len([one for one in told if "Watchdog timeout" in one["MESSAGE"]])


def test_daemon_that_looks_regularly_is_left_alone(watched: Service) -> None:
    time.sleep(2.5 * WATCHDOG_S)
    assert (restarts(watched), is_back(watched)) == (0, True)


def test_stopped_process_is_started_again(watched: Service) -> None:
    before, spoke = watched.status()["pid"], timeouts(watched)
    watched.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", UNIT)
    assert watched.dial("victim.service", SHUT) == DENIED
    patiently(lambda: restarts(watched) == 1 and is_back(watched), "a new daemon")
    patiently(lambda: timeouts(watched) == spoke + 1, "the watchdog in the journal")
    assert watched.status()["pid"] != before
    assert watched.dial("victim.service", SHUT) == DENIED


def test_pass_that_hangs_is_ended_and_policies_stay(watched: Service) -> None:
    machine = watched.machine
    machine.write("/run/hang.py", HANG)
    machine.run("sh", "-c", "test -e /dev/fuse || mknod -m 0600 /dev/fuse c 10 229")
    pid, spoke = watched.show("MainPID")["MainPID"], timeouts(watched)
    machine.run("systemd-run", "--quiet", "--unit=hang.service", "python3", "/run/hang.py", pid)
    try:
        patiently(lambda: timeouts(watched) > spoke, "the watchdog")
        assert watched.dial("victim.service", SHUT) == DENIED
        patiently(lambda: restarts(watched) == 1, "the end of the hanging daemon")
    finally:
        machine.run("systemctl", "stop", "hang.service")
    patiently(lambda: is_back(watched) and watched.status()["enforcing"], "a new daemon")
    assert watched.status()["problems"] == []
    assert watched.dial("victim.service", SHUT) == DENIED


def test_bad_settings_are_not_tried_again_while_pins_stay_in_force(watched: Service) -> None:
    watched.settings("nonsense: true\n")
    assert watched.machine.try_run("systemctl", "restart", UNIT).returncode != 0
    shown = watched.show("ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    time.sleep(3)  # three times what it waits between attempts
    assert watched.show("ActiveState", "NRestarts") == {"ActiveState": "failed", "NRestarts": "0"}
    assert watched.dial("victim.service", SHUT) == DENIED
