# SPDX-License-Identifier: Apache-2.0
"""Denied calls of what users run, in journalctl as root and as the user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from beds import logins, trees
from system.conftest import Boot
from system.journaling import explained, pid_of, told, until
from system.service import Service

USER, UID = "alice", 1001
UNIT = "app-caller.service"
MANAGER = f"user@{UID}.service"
SHUT = "2222"
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: users}}
spec:
  subject: {{userUnits: [{UNIT}], units: ["session-*.scope"]}}
  egress: [{{name: shut, action: deny, ports: [{SHUT}], errno: EHOSTUNREACH}}]
"""


@pytest.fixture(scope="module")
def service(boot: Boot, distro: trees.Distro) -> Iterator[Service]:
    """A machine where alice, who may read the journal, is logged in."""

    def prepare(root: Path) -> None:
        logins.add(root, distro)

    with boot(prepare) as machine:
        groups = "--groups=systemd-journal"
        machine.run("useradd", "--create-home", f"--uid={UID}", "--shell=/bin/bash", groups, USER)
        machine.write(*Service.DIAL)
        made = Service(machine)
        made.reset()
        made.policy("users", POLICY)
        made.settings("audit: {window: 1s}\n")
        made.start()
        yield made


def test_unit_of_a_user_is_found_by_root_and_by_the_user(service: Service) -> None:
    machine = service.machine
    machine.run("loginctl", "enable-linger", USER)
    machine.run("systemctl", "start", MANAGER)
    words = ("systemd-run", "--user", f"--machine={USER}@.host", "--quiet", "--wait", f"--unit={UNIT}")
    machine.run(*words, "python3", Service.DIAL[0], SHUT)
    (entry,) = until(
        lambda: service.journal(f"OBJECT_SYSTEMD_USER_UNIT={UNIT}", f"_PID={pid_of(service)}"), "the denial"
    )
    assert (entry["OBJECT_SYSTEMD_UNIT"], entry["CGNETD_USER_UNIT"]) == (MANAGER, UNIT)
    assert entry["CGNETD_CGROUP"].startswith(f"/user.slice/user-{UID}.slice/{MANAGER}/")
    asking = ("journalctl", "--no-pager", "-o", "json", f"--user-unit={UNIT}")
    for who in ((), ("runuser", "-u", USER, "--")):
        shown = [json.loads(line) for line in machine.run(*who, *asking).splitlines()]
        assert entry["__CURSOR"] in [one["__CURSOR"] for one in shown]
    assert entry["__CURSOR"] in [one["__CURSOR"] for one in told(service, MANAGER)]
    assert f"cgnetctl explain {entry['CGNETD_CGROUP']} connect tcp 127.0.0.1:{SHUT}" in explained(
        service, f"--user-unit={UNIT}"
    )


def test_session_is_a_victim_by_its_scope(service: Service) -> None:
    service.machine.run("runuser", "--login", USER, "--command", f"python3 {Service.DIAL[0]} {SHUT}")
    (entry,) = until(
        lambda: [one for one in service.journal("CGNETD_POLICY=users") if one["CGNETD_UNIT"].startswith("session-")],
        "the denial in the session",
    )
    scope = entry["CGNETD_UNIT"]
    assert entry["CGNETD_CGROUP"] == f"/user.slice/user-{UID}.slice/{scope}"
    assert [one["__CURSOR"] for one in told(service, scope)] == [entry["__CURSOR"]]
