# SPDX-License-Identifier: Apache-2.0
"""The line of `systemctl status`: what is in force and what is wrong, in each state, as soon as it is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.service import UNIT, Service, eventually

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: victim}
spec:
  subject: {units: [victim.service]}
  egress: [{name: rest, action: deny}]
"""
BROKEN = POLICY.replace("victim}", "broken}").replace("egress", "egres")
BACKED = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: backed}
spec:
  subject: {units: [victim.service]}
  egress: [{name: db, action: redirect, to: ["service:db"]}]
---
apiVersion: cgnetd/v1
kind: Service
metadata: {name: db}
spec:
  addresses: [192.0.2.20]
  ports: [{port: 5432, protocol: tcp}]
  backends: [{address: 127.0.0.1, port: 5431}, {address: 127.0.0.1, port: 5432}]
  health: {interval: 200ms, timeout: 100ms, fall: 5}
"""
TUNED = POLICY.replace("victim}", "tuned}") + "  tcp: {congestion: nosuch}\n"
WAITING = POLICY.replace("victim}", "waiting}") + "  socket: [{action: allow, set: {device: nosuch0}}]\n"
LISTEN = "import socket, time; made = socket.create_server(('127.0.0.1', 5432)); time.sleep(3600)"


def text(service: Service) -> str:
    return service.show("StatusText")["StatusText"]


def becomes(service: Service, wanted: str) -> None:
    """Wait until the line is this one; AssertionError with what it is instead."""
    try:
        eventually(lambda: text(service) == wanted, wanted)
    except AssertionError as error:
        raise AssertionError(f"{error}\nit is: {text(service)}") from None


@pytest.fixture
def running(service: Service) -> Service:
    service.policy("victim", POLICY)
    service.start()
    return service


def test_without_policies(service: Service) -> None:
    service.start()
    assert text(service) == "not enforcing: there are no policies"


def test_with_policies_from_the_first_moment(running: Service) -> None:
    assert text(running) == "enforcing generation 1, 1 policy, 0 cgroups governed"
    assert f'Status: "{text(running)}"' in running.machine.try_run("systemctl", "status", UNIT).stdout


def test_governed_cgroups_are_counted_as_they_come_and_go(running: Service) -> None:
    running.machine.run("systemd-run", "--quiet", "--unit=victim.service", "sleep", "3600")
    becomes(running, "enforcing generation 1, 1 policy, 1 cgroup governed")
    running.machine.run("systemctl", "stop", "victim.service")
    becomes(running, "enforcing generation 1, 1 policy, 0 cgroups governed")


def test_rejected_files_are_named_with_the_line_until_they_are_mended(running: Service) -> None:
    one = running.policy("a-broken", BROKEN)
    becomes(running, f"enforcing generation 1, 1 policy, 0 cgroups governed; rejected: {one}:6")
    other = running.policy("b-broken", "apiVersion: cgnetd/v1\nkind: Polic\n")
    becomes(running, f"enforcing generation 1, 1 policy, 0 cgroups governed; rejected: {one}:6 and 1 more")
    for path in (one, other):
        running.machine.path(path).unlink()
    becomes(running, "enforcing generation 1, 1 policy, 0 cgroups governed")


def test_start_with_bad_policies_and_nothing_pinned(service: Service) -> None:
    broken = service.policy("broken", BROKEN)
    service.start()
    assert text(service) == f"not enforcing: no generation is in force; rejected: {broken}:6"
    assert service.show("ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    assert service.machine.try_run("cgnetctl", "status").returncode == 1
    service.machine.path(broken).unlink()
    service.policy("victim", POLICY)
    becomes(service, "enforcing generation 1, 1 policy, 0 cgroups governed")


def test_start_with_bad_policies_goes_on_with_what_is_pinned(running: Service) -> None:
    broken = running.policy("broken", BROKEN)
    running.machine.run("systemctl", "restart", UNIT)
    assert text(running) == f"enforcing generation 1, 1 policy, 0 cgroups governed; rejected: {broken}:6"


def test_name_of_a_file_cannot_speak_to_the_service_manager(running: Service) -> None:
    directory = running.machine.path("/etc/cgnetd/policy.d")
    (Path(directory) / "x\nSTATUS=all is well\n.yaml").write_text("nonsense\n", encoding="utf-8")
    becomes(
        running,
        "enforcing generation 1, 1 policy, 0 cgroups governed; "
        "rejected: /etc/cgnetd/policy.d/x?STATUS=all is well?.yaml:1",
    )


def test_flushed(running: Service) -> None:
    running.machine.run("cgnetctl", "flush")
    becomes(running, "not enforcing: everything was flushed; cgnetctl reload enforces again")
    running.machine.run("cgnetctl", "reload")
    eventually(lambda: text(running).startswith("enforcing generation "), "enforcement")


def test_dead_backends_are_counted_until_they_answer(service: Service) -> None:
    service.policy("backed", BACKED)
    service.start()
    head = "enforcing generation 1, 1 policy, 0 cgroups governed"
    becomes(service, f"{head}; dead: db 127.0.0.1:5431 and 1 more")
    service.machine.run("systemd-run", "--quiet", "--unit=backend.service", "python3", "-c", LISTEN)
    try:
        becomes(service, f"{head}; dead: db 127.0.0.1:5431")
    finally:
        service.machine.run("systemctl", "stop", "backend.service")


def test_what_the_kernel_does_otherwise_and_what_is_waited_for(service: Service) -> None:
    tuned = service.policy("tuned", TUNED)
    service.policy("waiting", WAITING)
    service.start()
    assert text(service) == (
        f"enforcing generation 1, 2 policies, 0 cgroups governed; degraded: {tuned}:1; waiting for device nosuch0"
    )


def test_stopped_says_that_enforcement_stays(running: Service) -> None:
    running.machine.run("systemctl", "stop", UNIT)
    assert text(running) in ("", "stopping, enforcement stays on")
