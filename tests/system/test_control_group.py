# SPDX-License-Identifier: Apache-2.0
"""Who may ask the daemon what: root everything, members of a group what changes nothing, others nothing."""

from __future__ import annotations

import stat
import subprocess

import pytest

from cgnetd.service.events import Kind
from system.service import UNIT, Service, eventually

GROUP = "cgnetd"
SOCKET = "/run/cgnetd/control.sock"
STRANGER = "65534"
NO_PRIVILEGE = 4
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: victim}
spec:
  subject: {units: [victim.service]}
  default: {egress: deny}
"""
ALLOWED = (
    ("version",),
    ("status",),
    ("diff",),
    ("events", "-n", "1"),
    ("explain", "/system.slice/other.service", "connect", "tcp", "192.0.2.1:80"),
)
REFUSED = (("reload",), ("flush",), ("diff", "--policy-dir", "/etc"))


@pytest.fixture
def running(service: Service) -> Service:
    service.policy("victim", POLICY)
    service.start()
    return service


def ask(service: Service, *words: str, groups: str = "") -> subprocess.CompletedProcess[str]:
    """What cgnetctl answers a user who is in no group but these."""
    who = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}")
    return service.machine.try_run(*who, f"--groups={groups}" if groups else "--clear-groups", "cgnetctl", *words)


def test_socket_is_the_groups_and_its_directory_everybodys(running: Service) -> None:
    gid = int(running.machine.run("getent", "group", GROUP).split(":")[2])
    found = running.machine.path(SOCKET).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, gid)
    assert stat.S_IMODE(running.machine.path(SOCKET).parent.stat().st_mode) == 0o755


@pytest.mark.parametrize("words", ALLOWED, ids=lambda words: words[0])
def test_members_may_ask(running: Service, words: tuple[str, ...]) -> None:
    done = ask(running, *words, groups=GROUP)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_members_may_change_nothing(running: Service, words: tuple[str, ...]) -> None:
    before = running.status()["generation"]
    done = ask(running, *words, groups=GROUP)
    assert done.returncode == NO_PRIVILEGE
    assert f"{words[0]}: only root may" in done.stderr
    assert STRANGER in done.stderr
    assert (running.status()["generation"], running.status()["enforcing"]) == (before, True)


def test_others_are_not_let_in_and_told_whom_to_join(running: Service) -> None:
    done = ask(running, "status")
    assert done.returncode == NO_PRIVILEGE
    assert "control_group" in done.stderr


@pytest.mark.parametrize(
    ("group", "reason"),
    [("null", ""), ("nosuch", "there is no group nosuch"), ("daemon", "SupplementaryGroups=daemon")],
)
def test_without_a_group_root_alone_may_and_is_told_once_why(service: Service, group: str, reason: str) -> None:
    service.settings(f"control_group: {group}\n")
    service.start()
    assert stat.S_IMODE(service.machine.path(SOCKET).stat().st_mode) == 0o600
    assert ask(service, "status", groups=GROUP).returncode == NO_PRIVILEGE
    eventually(lambda: service.own_journal(f"MESSAGE_ID={Kind.STARTED.message_id}"), "what it says last")
    said = [one["MESSAGE"] for one in service.own_journal()]
    alone = [line for line in said if "for root alone" in line]
    assert len(alone) == bool(reason), said
    assert all(reason in line for line in alone)


def test_group_may_be_another_one_that_the_unit_names(service: Service) -> None:
    drop_in = f"/run/systemd/system/{UNIT}.d/group.conf"
    service.settings("control_group: daemon\n")
    try:
        service.machine.write(drop_in, "[Service]\nSupplementaryGroups=daemon\n")
        service.machine.run("systemctl", "daemon-reload")
        service.start()
        assert ask(service, "version", groups="daemon").returncode == 0
        assert ask(service, "status", groups=GROUP).returncode == NO_PRIVILEGE
    finally:
        service.machine.path(drop_in).unlink()
        service.machine.run("systemctl", "daemon-reload")
