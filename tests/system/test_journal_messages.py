# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells of itself: each kind made for real, found by MESSAGE_ID, with priority, fields, explanation."""

from __future__ import annotations

import re
from typing import Any

from beds.machine import Machine
from cgnetd.service.events import Kind
from system.journaling import calls_of, explained, fields, of_kind, pid_of, put_storm, start_unit, told, until
from system.service import UNIT, Service

CALLER = "caller.service"
SERVER = "backend.service"
PORT, PLACE = 7001, "/sys/fs/bpf/cgnetd"
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: told}}
spec:
  subject: {{units: [{CALLER}, "storm*.service"]}}
  egress: [{{name: shut, action: deny, errno: EHOSTUNREACH}}]
"""
LACKING = """\
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: lacking}
spec:
  subject: {units: [lacking.service]}
  socket: [{name: device, action: allow, set: {device: wire0}}]
  egress: [{name: source, action: allow, to: [0.0.0.0/0], source: {address: [10.255.9.8]}}]
  tcp: {congestion: nosuch}
"""
SERVICE = f"""\
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec:
  addresses: [192.0.2.20]
  ports: [{{port: 5432, protocol: udp}}]
  backends: [{{address: 127.0.0.1, port: {PORT}}}]
  health: {{interval: 200ms, timeout: 100ms, fall: 5}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: balanced}}
spec:
  subject: {{units: [{CALLER}]}}
  egress: [{{name: db, action: redirect, to: ["service:db"]}}]
"""
OTHER_BACKEND = SERVICE.replace(f"127.0.0.1, port: {PORT}", f"127.0.0.1, port: {PORT + 1}")
CROWD_CALLS = 400
CROWD = """
own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
for n in $(seq "$1"); do
    mkdir "$own/$n" && echo $$ >"$own/$n/cgroup.procs" && /run/storm connect 1 1 >/dev/null
done
touch /run/crowded
sleep 1000
"""
LISTEN = f"import socket, time; s = socket.create_server(('127.0.0.1', {PORT})); time.sleep(1000)"
HOLD = """
import socket, time
made = socket.socket(type=socket.SOCK_DGRAM)
made.connect(("192.0.2.20", 5432))
print("up", flush=True)
time.sleep(1000)
"""


def the_one(service: Service, kind: Kind) -> dict[str, Any]:
    """The only entry of a kind, as it should be: priority, fields that the kind tells of, its explanation by -x."""
    (entry,) = until(lambda: of_kind(service, kind), kind.label)
    return checked(service, kind, entry)


def checked(service: Service, kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    assert entry["PRIORITY"] == str(int(kind.priority))
    assert (entry["_SYSTEMD_UNIT"], entry["SYSLOG_IDENTIFIER"]) == (UNIT, "cgnetd")
    ours = fields(entry)
    assert ours.pop("TYPE") == kind.label
    assert ours.pop("TIME")
    assert {name.lower() for name in ours} <= kind.fields
    text = explained(service, f"MESSAGE_ID={kind.message_id}", f"_PID={entry['_PID']}")
    assert entry["MESSAGE"] in text
    assert re.search(r"(?:--|░░) Subject: .+\n(?:--|░░) Defined-By: cgnetd", text)
    assert not re.search(r"@[A-Z_]+@", text)
    for name in re.findall(r"@CGNETD_([A-Z_]+)@", _template(service.machine, kind)):
        assert str(ours[name]) in text
    return ours


def _template(machine: Machine, kind: Kind) -> str:
    """The explanation before it is filled in."""
    return machine.run("journalctl", "--dump-catalog", kind.message_id)


def test_start_stop_and_flush_are_told(service: Service) -> None:
    service.start()
    assert the_one(service, Kind.STARTED)["PID"]
    assert "there are no policies" in the_one(service, Kind.NOT_ENFORCING)["REASONS"]
    service.machine.run("cgnetctl", "flush")
    the_one(service, Kind.FLUSHED)
    pid = pid_of(service)
    service.machine.run("systemctl", "stop", UNIT)
    (entry,) = until(lambda: service.journal(f"MESSAGE_ID={Kind.STOPPED.message_id}", f"_PID={pid}"), "its end")
    checked(service, Kind.STOPPED, entry)


def test_loaded_and_rejected_policies_are_told(service: Service) -> None:
    path = service.policy("told", POLICY)
    service.start()
    assert the_one(service, Kind.POLICY_LOADED)["GENERATION"] == "1"
    service.policy("told", POLICY.replace("egress", "egres"))
    service.machine.try_run("systemctl", "reload", UNIT)
    assert f"{path}" in the_one(service, Kind.POLICY_REJECTED)["PROBLEMS"]


def test_drift_that_was_repaired_is_told(service: Service) -> None:
    service.policy("told", POLICY)
    service.start()
    service.machine.run("rm", f"{PLACE}/links/connect4")
    assert "connect4" in the_one(service, Kind.DRIFT_REPAIRED)["REPAIRED"]


def test_what_policies_wait_for_is_told_and_when_it_comes(service: Service) -> None:
    machine = service.machine
    service.policy("lacking", LACKING)
    service.start()
    assert the_one(service, Kind.DEVICE_MISSING) == {"DEVICE": "wire0"}
    assert the_one(service, Kind.SOURCE_MISSING) == {"ADDRESS": "10.255.9.8"}
    assert "nosuch" in the_one(service, Kind.DEGRADED)["PROBLEMS"]
    machine.run("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
    try:
        machine.run("ip", "address", "add", "10.255.9.8/32", "dev", "lo")
        assert the_one(service, Kind.DEVICE_FOUND) == {"DEVICE": "wire0"}
        assert the_one(service, Kind.SOURCE_FOUND) == {"ADDRESS": "10.255.9.8"}
    finally:
        machine.run("ip", "link", "delete", "wire0")
        machine.try_run("ip", "address", "delete", "10.255.9.8/32", "dev", "lo")


def test_backends_that_come_and_go_are_told(service: Service) -> None:
    machine = service.machine
    begin = ("systemd-run", "--quiet", "--collect")
    service.policy("db", SERVICE)
    service.start()
    down = the_one(service, Kind.BACKEND_DOWN)
    assert (down["SERVICE"], down["ADDRESS"], down["PORT"]) == ("db", "127.0.0.1", str(PORT))
    assert the_one(service, Kind.SERVICE_DOWN)["SERVICE"] == "db"
    machine.run(*begin, f"--unit={SERVER}", "python3", "-c", LISTEN)
    try:
        assert the_one(service, Kind.BACKEND_UP)["SERVICE"] == "db"
        machine.run(*begin, f"--unit={CALLER}", "python3", "-c", HOLD)
        until(lambda: [one for one in service.journal(f"--unit={CALLER}") if one["MESSAGE"] == "up"], "a flow")
        service.policy("db", OTHER_BACKEND)
        service.machine.run("systemctl", "reload", UNIT)
        assert the_one(service, Kind.FLOWS_CLOSED)["CLOSED"]
    finally:
        machine.try_run("systemctl", "stop", SERVER, CALLER)


def number_of_lost(entries: list[dict[str, Any]]) -> int:
    return sum(int(fields(entry)["LOST"]) for entry in entries)


def test_events_that_were_lost_are_told_with_their_number(service: Service) -> None:
    """So many cgroups that the table of calls has no room for each one's first."""
    machine = service.machine
    put_storm(machine)
    machine.write("/run/crowd.sh", CROWD)
    service.policy("told", POLICY)
    service.settings("audit: {window: 10s}\nlimits: {flows: 256}\n")
    service.start()
    delegated = ("systemd-run", "--quiet", "--collect", "--unit=storm.service", "--property=Delegate=yes")
    machine.run("rm", "-f", "/run/crowded")
    machine.run(*delegated, "sh", "/run/crowd.sh", str(CROWD_CALLS))
    try:
        until(machine.path("/run/crowded").exists, "the last call")
        lost = service.status()["stats"]["lost"]
        assert 0 < lost < CROWD_CALLS
        # One for all that were lost in a window: a slow host makes the calls in several.
        entries = until(
            lambda: (found := of_kind(service, Kind.EVENTS_LOST)) and number_of_lost(found) >= lost and found, "losses"
        )
        ours = [checked(service, Kind.EVENTS_LOST, entry) for entry in entries]
        assert number_of_lost(entries) == int(ours[-1]["LOST_TOTAL"]) == lost
        until(lambda: calls_of(told(service, "storm.service")) + lost >= CROWD_CALLS, "the other calls")
        assert calls_of(told(service, "storm.service")) + lost == CROWD_CALLS
    finally:
        machine.run("systemctl", "stop", "storm.service")


def test_cgroups_beyond_the_limit_are_told_and_that_the_kernel_refuses_them(service: Service) -> None:
    machine = service.machine
    service.policy("told", POLICY)
    service.settings("limits: {cgroups: 1024, reconcile_interval: 1h}\n")
    service.start()
    script = "mkdir /sys/fs/cgroup/many && cd /sys/fs/cgroup/many && seq 1100 | xargs mkdir"
    try:
        machine.run("sh", "-c", script)
        found = until(lambda: of_kind(service, Kind.LABEL_FAILED), "a cgroup without a label")
        assert checked(service, Kind.LABEL_FAILED, found[0])["ERRNO"] == "E2BIG"
        refused = until(lambda: of_kind(service, Kind.RECONCILE_FAILED), "what the kernel refused")
        assert "limits.cgroups" in checked(service, Kind.RECONCILE_FAILED, refused[0])["ERROR"]
        machine.try_run(*start_unit("unlabelled.service", "python3", Service.DIAL[0], "9"))
        (entry,) = until(lambda: of_kind(service, Kind.DENY_BUILTIN, "CGNETD_RULE=unlabelled"), "the denial")
        assert entry["OBJECT_SYSTEMD_UNIT"] == "unlabelled.service"
        text = explained(service, f"MESSAGE_ID={Kind.DENY_BUILTIN.message_id}", f"_PID={pid_of(service)}")
        ours = fields(entry)
        assert f"The built-in rule unlabelled denied {ours['COUNT']} call(s) of {ours['HOOK']}" in text
        assert "cgroup /system.slice/unlabelled.service with EPERM" in text
    finally:
        machine.run("sh", "-c", "cd /sys/fs/cgroup/many && rmdir * 2>/dev/null; cd .. && rmdir many")


def test_default_action_is_explained_as_a_builtin_rule(service: Service) -> None:
    service.policy("told", POLICY.replace("egress: [", "bind: [").replace("EHOSTUNREACH", "EACCES"))
    service.settings("default_action: deny\n")
    service.start()
    service.dial(CALLER, 9)
    until(lambda: of_kind(service, Kind.DENY_BUILTIN, f"CGNETD_UNIT={CALLER}"), "the denial")
    text = explained(service, f"MESSAGE_ID={Kind.DENY_BUILTIN.message_id}", f"CGNETD_UNIT={CALLER}")
    assert "The built-in rule default_action denied 1 call(s) of connect" in text
    assert f"cgnetctl explain /system.slice/{CALLER} connect tcp 127.0.0.1:9" in text


def test_catalog_of_the_machine_has_every_kind(machine: Machine) -> None:
    assert [kind for kind in Kind if "Defined-By: cgnetd" not in _template(machine, kind)] == []
