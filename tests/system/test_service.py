# SPDX-License-Identifier: Apache-2.0
"""cgnetd under the packaged unit: started, reloaded, restarted, killed, stopped, flushed, with units that call out."""

from __future__ import annotations

import pytest

from system.service import UNIT, Service, eventually

OPEN, SHUT = 1111, 2222  # nobody listens on either
LET_THROUGH = "ECONNREFUSED"  # by the loopback itself
DENIED = "EHOSTUNREACH"
REJECTED = "6a085e9637a845bea005c87ad7d94a54"  # see docs/events.md


def policy(allowed: int = OPEN) -> str:
    return f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: victim}}
spec:
  subject: {{units: [victim.service]}}
  egress:
    - {{name: open, action: allow, ports: [{allowed}]}}
    - {{name: rest, action: deny, errno: {DENIED}}}
"""


@pytest.fixture
def running(service: Service) -> Service:
    """Started with a policy for victim.service: OPEN is allowed, the rest denied."""
    service.policy("victim", policy())
    service.start()
    return service


def verdicts(service: Service, unit: str = "victim.service") -> tuple[str, str]:
    """What a new unit gets at OPEN and at SHUT."""
    return service.dial(unit, OPEN), service.dial(unit, SHUT)


def test_start_returns_when_policies_are_in_force(running: Service) -> None:
    assert verdicts(running) == (LET_THROUGH, DENIED)
    shown = running.show("Type", "ActiveState", "SubState", "StatusText", "NRestarts")
    assert shown["Type"] in ("notify", "notify-reload")
    assert (shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == ("active", "running", "0")
    assert shown["StatusText"]


def test_units_without_policy_are_left_alone(running: Service) -> None:
    assert verdicts(running, "bystander.service") == (LET_THROUGH, LET_THROUGH)


def test_start_without_policies_is_ready_and_says_so(service: Service) -> None:
    service.start()
    assert service.show("ActiveState")["ActiveState"] == "active"
    assert not service.status()["enforcing"]
    assert verdicts(service) == (LET_THROUGH, LET_THROUGH)


def test_journal_of_the_victim_shows_the_denial(running: Service) -> None:
    running.dial("victim.service", SHUT)
    told = eventually(
        lambda: [one for one in running.own_journal("--unit=victim.service") if "CGNETD_VERDICT" in one],
        "the denial in journalctl -u victim.service",
    )
    assert {name: told[-1][name] for name in told[-1] if name in FIELDS} == {
        "CGNETD_VERDICT": "deny",
        "CGNETD_POLICY": "victim",
        "CGNETD_RULE": "rest",
        "CGNETD_REMOTE_ADDRESS": "127.0.0.1",
        "CGNETD_REMOTE_PORT": str(SHUT),
        "OBJECT_SYSTEMD_UNIT": "victim.service",
        "_SYSTEMD_UNIT": UNIT,
        "PRIORITY": "5",
    }


FIELDS = frozenset(
    (
        *("CGNETD_VERDICT", "CGNETD_POLICY", "CGNETD_RULE", "CGNETD_REMOTE_ADDRESS", "CGNETD_REMOTE_PORT"),
        *("OBJECT_SYSTEMD_UNIT", "_SYSTEMD_UNIT", "PRIORITY"),
    )
)


def test_journal_is_selected_by_policy(running: Service) -> None:
    running.dial("victim.service", SHUT)
    told = eventually(
        lambda: [one for one in running.own_journal("CGNETD_POLICY=victim") if one.get("CGNETD_VERDICT") == "deny"],
        "the denial in journalctl CGNETD_POLICY=victim",
    )
    assert all(one["CGNETD_POLICY"] == "victim" for one in told)


def test_reload_puts_changed_policy_in_force(running: Service) -> None:
    running.policy("victim", policy(allowed=SHUT))
    running.machine.run("systemctl", "reload", UNIT)
    assert verdicts(running) == (DENIED, LET_THROUGH)


def test_reload_of_broken_policy_changes_nothing_and_says_so(running: Service) -> None:
    broken = running.policy("victim", policy().replace("egress", "egres"))
    assert running.machine.try_run("systemctl", "reload", UNIT).returncode != 0
    told = eventually(lambda: running.own_journal(f"--unit={UNIT}", f"MESSAGE_ID={REJECTED}"), "that it was rejected")
    assert f"{broken}:6" in told[-1]["MESSAGE"]
    assert running.show("ActiveState")["ActiveState"] == "active"
    assert verdicts(running) == (LET_THROUGH, DENIED)


def test_restart_adopts_what_is_in_force(running: Service) -> None:
    before = running.status()
    running.machine.run("systemctl", "restart", UNIT)
    after = running.status()
    assert (after["enforcing"], after["generation"]) == (True, before["generation"])
    assert after["pid"] != before["pid"]
    assert verdicts(running) == (LET_THROUGH, DENIED)


def test_killed_daemon_is_started_again_while_enforcement_goes_on(running: Service) -> None:
    before = running.status()["pid"]
    running.machine.run("systemctl", "kill", "--signal=SIGKILL", UNIT)
    assert verdicts(running) == (LET_THROUGH, DENIED)
    eventually(
        lambda: running.show("ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "1"}, "restart"
    )
    assert running.status()["pid"] != before
    assert verdicts(running) == (LET_THROUGH, DENIED)


def test_stop_leaves_enforcement_and_flush_takes_it_away(running: Service) -> None:
    running.machine.run("systemctl", "stop", UNIT)
    assert running.show("ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert verdicts(running) == (LET_THROUGH, DENIED)
    running.machine.run("cgnetctl", "flush")
    assert verdicts(running) == (LET_THROUGH, LET_THROUGH)
    assert not running.machine.path("/sys/fs/bpf/cgnetd").exists()


def test_bad_settings_are_not_tried_again(service: Service) -> None:
    service.settings("audit: {windw: 3s}\n")
    assert service.machine.try_run("systemctl", "start", UNIT).returncode != 0
    shown = service.show("ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}


def test_unit_file_has_no_mistakes(service: Service) -> None:
    done = service.machine.try_run("systemd-analyze", "verify", "--man=no", UNIT)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
