# SPDX-License-Identifier: Apache-2.0
"""`systemctl reload`: policies and settings anew, an answer that counts, and what is in force until then."""

from __future__ import annotations

import pytest

from system.service import UNIT, Service, eventually

SHUT = 2222  # nobody listens there
LET_THROUGH = "ECONNREFUSED"
DENIED = "EHOSTUNREACH"
BY_DEFAULT = "EPERM"
SETTINGS_REJECTED = "0385885c1eda4212bd908625672126aa"
SETTINGS_CHANGED = "673469ea72ca4e3b946f5dcac0eadc28"
ROUNDS = 20
CALL = ("connect", "tcp", f"127.0.0.1:{SHUT}")


def policy(action: str = f"deny, errno: {DENIED}") -> str:
    return f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: victim}}
spec:
  subject: {{units: [victim.service]}}
  egress: [{{name: rest, action: {action}}}]
"""


@pytest.fixture
def running(service: Service) -> Service:
    service.policy("victim", policy())
    service.start()
    return service


def reload(service: Service) -> int:
    return service.machine.try_run("systemctl", "reload", UNIT).returncode


def is_steady(service: Service) -> bool:
    shown = service.show("ActiveState", "SubState", "NRestarts")
    return shown == {"ActiveState": "active", "SubState": "running", "NRestarts": "0"}


def test_rejected_policy_fails_the_reload_and_is_told_with_its_place(running: Service) -> None:
    broken = running.policy("broken", policy().replace("egress", "egres"))
    assert reload(running) != 0
    assert running.dial("victim.service", SHUT) == DENIED

    def told() -> list[str]:
        lines = [one["MESSAGE"] for one in running.journal(f"--unit={UNIT}", "SYSLOG_IDENTIFIER=cgnetctl")]
        return [line for line in lines if f"{broken}:6" in line]

    eventually(told, "the place in the journal")
    running.machine.path(broken).unlink()
    assert reload(running) == 0
    eventually(lambda: is_steady(running), "running")


def test_reload_returns_when_the_new_policy_is_in_force_again_and_again(running: Service) -> None:
    for number in range(ROUNDS):
        running.policy("victim", policy("allow" if number % 2 == 0 else f"deny, errno: {DENIED}"))
        assert reload(running) == 0
        verdict = running.machine.try_run(
            "cgnetctl", "explain", "/system.slice/victim.service", "connect", "tcp", "127.0.0.1:2222"
        )
        assert verdict.returncode == number % 2, verdict.stdout
    eventually(lambda: is_steady(running), "running")
    assert running.dial("victim.service", SHUT) == DENIED


@pytest.mark.parametrize("how", [("systemctl", "kill", "--signal=SIGHUP", UNIT), ("systemctl", "reload", UNIT)])
def test_settings_that_can_change_do(running: Service, how: tuple[str, ...]) -> None:
    running.policy("victim", policy("pass"))
    running.machine.run("systemctl", "reload", UNIT)
    assert running.dial("victim.service", SHUT) == LET_THROUGH
    running.settings("default_action: deny\naudit: {window: 1s}\n")
    running.machine.run(*how)
    told = eventually(lambda: running.own_journal(f"MESSAGE_ID={SETTINGS_CHANGED}"), "that settings changed")
    assert told[-1]["MESSAGE"] == "settings changed: audit.window, default_action"
    eventually(lambda: running.status()["default_action"] == "deny", "another default")
    assert running.dial("victim.service", SHUT) == BY_DEFAULT
    eventually(lambda: is_steady(running), "running")


def test_settings_that_need_a_restart_are_told_by_name(running: Service) -> None:
    running.settings("limits: {flows: 2048}\ncontrol_group: null\n")
    done = running.machine.try_run("cgnetctl", "reload")
    assert done.returncode == 0
    assert "settings need a restart of cgnetd: control_group, limits.flows" in done.stdout
    told = eventually(lambda: running.own_journal(f"MESSAGE_ID={SETTINGS_CHANGED}"), "that settings changed")
    assert ["need a restart: control_group, limits.flows" in one["MESSAGE"] for one in told] == [True]


def test_policies_may_move_to_other_directories(running: Service) -> None:
    running.machine.write("/etc/cgnetd/elsewhere.d/victim.yaml", policy("allow"))
    running.settings("policy_dirs: [/etc/cgnetd/elsewhere.d]\n")
    try:
        assert reload(running) == 0
        assert running.dial("victim.service", SHUT) == LET_THROUGH
        running.machine.write("/etc/cgnetd/elsewhere.d/victim.yaml", policy())  # and are watched there
        eventually(lambda: running.dial("victim.service", SHUT) == DENIED, "the changed policy")
    finally:
        running.machine.run("rm", "-r", "/etc/cgnetd/elsewhere.d")


def test_bad_settings_fail_the_reload_and_change_nothing(running: Service) -> None:
    running.settings("default_action: deny\naudit: {windw: 3s}\n")
    running.machine.run("systemctl", "kill", "--signal=SIGHUP", UNIT)
    told = eventually(lambda: running.own_journal(f"MESSAGE_ID={SETTINGS_REJECTED}"), "that settings were rejected")
    assert "/etc/cgnetd/cgnetd.yaml.d/test.yaml:2:9: audit.windw: unknown key" in told[-1]["MESSAGE"]
    assert reload(running) != 0
    text = running.show("StatusText")["StatusText"]
    assert text.startswith("enforcing generation ")
    assert text.endswith("; settings rejected: /etc/cgnetd/cgnetd.yaml.d/test.yaml:2")
    assert running.dial("victim.service", SHUT) == DENIED
    running.settings("default_action: allow\n")
    assert reload(running) == 0
    assert "rejected" not in running.show("StatusText")["StatusText"]


def test_pins_that_are_named_are_flushed_whatever_the_settings_say(running: Service) -> None:
    running.settings("nonsense: true\n")
    named = ("cgnetctl", "flush", "--pin-dir", "/sys/fs/bpf/cgnetd")
    assert running.machine.try_run("cgnetctl", "flush").returncode == 78
    asked = running.machine.try_run(*named)
    assert (asked.returncode, "cgnetd still runs" in asked.stdout) == (0, True), asked.stderr
    assert running.dial("victim.service", SHUT) == LET_THROUGH
    running.machine.run("systemctl", "stop", UNIT)
    assert running.machine.try_run(*named).returncode == 0
