# SPDX-License-Identifier: Apache-2.0
"""Journal entries about calls: found by every field, filed under the victim's unit, explained by journalctl -x."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from beds.machine import Machine
from cgnetd.service.events import Kind
from system.journaling import explained, fields, of_kind, pid_of, start_unit, told, until
from system.service import Service

BRIEF = 50
UNIT = "caller.service"
SESSION = "session-71.scope"

POLICIES = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: web}}
spec:
  subject: {{units: [{UNIT}, "brief-*.service", {SESSION}]}}
  socket:
    - {{name: no-raw, action: deny, families: [inet6], types: [raw], errno: EACCES}}
  bind:
    - {{name: shown, action: rewrite, addresses: [127.0.0.1], ports: [1080], log: true, rewrite: {{port: 1081}}}}
    - {{name: no-bind, action: deny, ports: [1090], errno: EACCES}}
  egress:
    - {{name: logged, action: allow, to: [127.0.0.1], ports: [1001], log: true}}
    - {{name: moved, action: redirect, to: [127.0.0.1], ports: [1002], log: true, redirect: {{to: ["127.0.0.1:1003"]}}}}
    - {{name: shut, action: deny, to: [127.0.0.1], ports: [1004], errno: EHOSTUNREACH}}
    - {{name: shut6, action: deny, to: ["::1"], ports: [1004], errno: ECONNREFUSED}}
    - {{name: device, action: allow, to: [127.0.0.1], ports: [1007], source: {{address: [10.255.9.9]}}}}
    - {{name: unix, action: deny, unix: [/run/shut.sock, "@shut"], errno: EACCES}}
    - {{name: rest, action: allow}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: trial}}
spec:
  subject: {{units: [{UNIT}]}}
  priority: 400
  mode: audit
  egress:
    - {{name: would-deny, action: deny, to: [127.0.0.1], ports: [1005], errno: EPERM}}
    - {{name: would-move, action: redirect, log: true, to: [0.0.0.0/0], ports: [1006], redirect: {{to: ["127.0.0.1"]}}}}
"""
# Every call that has something told about it, from one process.
PROGRAM = """\
import socket, sys

def call(family, kind, action, *place, protocol=0):
    try:
        with socket.socket(family, kind, protocol) as made:
            getattr(made, action)(*place)
    except OSError:
        pass

INET, INET6, UNIX, STREAM, DGRAM = (
    socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
)
for port in map(int, sys.argv[1:] or range(1001, 1008)):
    call(INET, STREAM, "connect", ("127.0.0.1", port))
if not sys.argv[1:]:
    call(INET6, STREAM, "connect", ("::1", 1004))
    call(INET6, DGRAM, "sendto", b"x", ("::1", 1004))
    call(UNIX, STREAM, "connect", "/run/shut.sock")
    call(UNIX, DGRAM, "sendto", b"x", "\\0shut")
    call(INET, STREAM, "bind", ("127.0.0.1", 1080))
    call(INET, STREAM, "bind", ("127.0.0.1", 1090))
    call(INET6, socket.SOCK_RAW, "bind", ("::", 0), protocol=socket.IPPROTO_ICMPV6)
"""
CALL = "/run/call.py"
TELLINGS = 13  # events that a run of it makes
# A process that makes one call and is gone.
BRIEF_PROGRAM = "import socket; socket.socket().connect_ex(('127.0.0.1', 1004))"


@pytest.fixture(scope="module")
def calling(machine: Machine) -> Iterator[Service]:
    """A unit has made every call; cgnetd runs."""
    service = Service(machine)
    service.reset()
    machine.write(CALL, PROGRAM)
    service.policy("web", POLICIES)
    service.settings("audit: {window: 1s}\n")
    service.start()
    machine.run(*start_unit(UNIT, "python3", CALL))
    until(lambda: len(told(service, UNIT)) >= TELLINGS, "an entry about every call")
    yield service
    service.reset()


def only(service: Service, **wanted: str) -> dict[str, Any]:
    """The one entry about the unit's calls that has these fields, found by them."""
    words = [f"CGNETD_{name.upper()}={value}" for name, value in wanted.items()]
    (entry,) = service.journal(f"_PID={pid_of(service)}", f"CGNETD_UNIT={UNIT}", *words)
    return entry


def test_every_call_has_one_entry(calling: Service) -> None:
    found = sorted(
        (one["CGNETD_HOOK"], one["CGNETD_PROTOCOL"], one["CGNETD_VERDICT"], one["CGNETD_RULE"])
        for one in told(calling, UNIT)
    )
    assert found == sorted(
        [
            ("connect", "tcp", "allow", "logged"),
            ("connect", "tcp", "redirect", "moved"),
            ("connect", "tcp", "deny", "shut"),
            ("connect", "tcp", "allow", "rest"),
            ("connect", "tcp", "allow", "rest"),
            ("connect", "tcp", "deny", "device"),
            ("connect", "tcp", "deny", "shut6"),
            ("sendmsg", "udp", "deny", "shut6"),
            ("connect", "unix", "deny", "unix"),
            ("sendmsg", "unix", "deny", "unix"),
            ("bind", "tcp", "rewrite", "shown"),
            ("bind", "tcp", "deny", "no-bind"),
            ("create", "icmp", "deny", "no-raw"),
        ]
    )


@pytest.mark.parametrize(
    ("wanted", "kind", "shown"),
    [
        ({"rule": "logged"}, Kind.ALLOW, {"VERDICT": "allow", "REMOTE_ADDRESS": "127.0.0.1", "REMOTE_PORT": "1001"}),
        (
            {"rule": "moved", "new_port": "1003"},
            Kind.REDIRECT,
            {"VERDICT": "redirect", "REMOTE_PORT": "1002", "NEW_ADDRESS": "127.0.0.1"},
        ),
        (
            {"errno": "EHOSTUNREACH"},
            Kind.DENY,
            {"VERDICT": "deny", "FAMILY": "4", "RULE": "shut", "POLICY": "web", "PROTOCOL": "tcp"},
        ),
        ({"family": "6", "hook": "connect"}, Kind.DENY, {"REMOTE_ADDRESS": "::1", "ERRNO": "ECONNREFUSED"}),
        ({"family": "6", "protocol": "udp"}, Kind.DENY, {"HOOK": "sendmsg", "RULE": "shut6"}),
        ({"name": "/run/shut.sock"}, Kind.DENY, {"FAMILY": "1", "PROTOCOL": "unix", "HOOK": "connect"}),
        ({"name": "@shut"}, Kind.DENY, {"HOOK": "sendmsg", "RULE": "unix", "ERRNO": "EACCES"}),
        ({"verdict": "rewrite"}, Kind.REDIRECT, {"HOOK": "bind", "LOCAL_PORT": "1080", "NEW_PORT": "1081"}),
        ({"local_port": "1090"}, Kind.DENY, {"HOOK": "bind", "LOCAL_ADDRESS": "127.0.0.1", "RULE": "no-bind"}),
        ({"socket_type": "raw"}, Kind.DENY, {"HOOK": "create", "FAMILY": "6", "RULE": "no-raw"}),
        (
            {"shadow_rule": "would-deny"},
            Kind.SHADOW_DENY,
            {"VERDICT": "allow", "SHADOW_VERDICT": "deny", "SHADOW_POLICY": "trial", "REMOTE_PORT": "1005"},
        ),
        (
            {"shadow_verdict": "redirect", "verdict": "allow"},
            Kind.SHADOW_REDIRECT,
            {"SHADOW_RULE": "would-move", "REMOTE_PORT": "1006"},
        ),
        ({"rule": "device"}, Kind.DENY_UNMET, {"VERDICT": "deny", "ERRNO": "EADDRNOTAVAIL"}),
    ],
    ids=lambda value: value.label if isinstance(value, Kind) else None,
)
def test_call_is_found_by_its_fields(
    calling: Service, wanted: dict[str, str], kind: Kind, shown: dict[str, str]
) -> None:
    entry = only(calling, **wanted)
    assert (entry["MESSAGE_ID"], entry["PRIORITY"]) == (kind.message_id, str(int(kind.priority)))
    assert {name: fields(entry).get(name) for name in shown} == shown


def test_every_field_of_every_entry_selects_it(calling: Service) -> None:
    entries = told(calling, UNIT)
    pairs = {(name, value) for entry in entries for name, value in fields(entry).items()}
    documented = calling.machine.run("journalctl", "--fields").split()
    assert {f"CGNETD_{name}" for name, _ in pairs} <= set(documented)
    for name, value in sorted(pairs):
        found = calling.journal(f"_PID={pid_of(calling)}", f"CGNETD_{name}={value}")
        wanted = [entry["__CURSOR"] for entry in entries if fields(entry).get(name) == value]
        assert set(wanted) <= {one["__CURSOR"] for one in found}, name
        assert all(one[f"CGNETD_{name}"] == value for one in found)


@pytest.mark.parametrize(
    ("wanted", "command"),
    [
        ({"errno": "EHOSTUNREACH"}, "connect tcp 127.0.0.1:1004"),
        ({"family": "6", "protocol": "udp"}, "sendmsg udp '[::1]:1004'"),
        ({"name": "@shut"}, "sendmsg unix @shut"),
        ({"local_port": "1090"}, "bind tcp 127.0.0.1:1090"),
        ({"socket_type": "raw"}, "create inet6/raw"),
    ],
)
def test_explanation_says_where_and_gives_a_command_that_works(
    calling: Service, wanted: dict[str, str], command: str
) -> None:
    entry = only(calling, **wanted)
    text = explained(calling, f"--unit={UNIT}", *(f"CGNETD_{name.upper()}={value}" for name, value in wanted.items()))
    line = f"cgnetctl explain /system.slice/{UNIT} {command}"
    assert f"Rule {entry['CGNETD_RULE']} of policy web denied 1 call(s) of {entry['CGNETD_HOOK']}" in text
    assert f"{entry['CGNETD_FILE']}:{entry['CGNETD_LINE']}" in text
    assert f"\n--     {line}\n" in text or f"\n░░     {line}\n" in text
    assert "@CGNETD" not in text
    done = calling.machine.try_run("sh", "-c", f"{line} --json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["verdict"], answer["rule"]) == (1, "deny", entry["CGNETD_RULE"])
    assert (answer["file"], str(answer["line"])) == (entry["CGNETD_FILE"], entry["CGNETD_LINE"])


@pytest.mark.parametrize(
    "kind", [Kind.ALLOW, Kind.REDIRECT, Kind.SHADOW_DENY, Kind.SHADOW_REDIRECT, Kind.DENY_UNMET], ids=lambda k: k.label
)
def test_every_kind_of_call_is_explained_with_rule_and_place(calling: Service, kind: Kind) -> None:
    entry = of_kind(calling, kind)[0]
    text = explained(calling, f"MESSAGE_ID={kind.message_id}", f"_PID={pid_of(calling)}")
    shadow = "SHADOW_" if kind in (Kind.SHADOW_DENY, Kind.SHADOW_REDIRECT) else ""
    ours = fields(entry)
    words = re.sub(r"\s+", " ", re.sub(r"^(?:--|░░) ?", "", text, flags=re.MULTILINE))
    assert f"ule {ours[f'{shadow}RULE']} of policy {ours[f'{shadow}POLICY']} " in words
    assert f"The rule is in {ours[f'{shadow}FILE']}:{ours[f'{shadow}LINE']} " in words
    if kind is Kind.DENY_UNMET:
        assert ours["REASON"] in words


def test_brief_victims_are_filed_under_their_units(calling: Service) -> None:
    units = [f"brief-{number}.service" for number in range(BRIEF)]
    script = " ".join(
        f'systemd-run --quiet --collect --unit={unit} --service-type=oneshot --no-block python3 -c "{BRIEF_PROGRAM}";'
        for unit in units
    )
    calling.machine.run("sh", "-c", script)
    for unit in units:
        (entry,) = until(partial(told, calling, unit), f"the denial of {unit}")
        assert (entry["OBJECT_SYSTEMD_UNIT"], entry["CGNETD_RULE"]) == (unit, "shut")
        cgroup = calling.machine.path(f"/sys/fs/cgroup/system.slice/{unit}")
        until(lambda cgroup=cgroup: not cgroup.exists(), f"the end of {unit}")


def test_session_is_a_victim_by_its_scope(calling: Service) -> None:
    calling.machine.run(
        *("systemd-run", "--quiet", "--scope", f"--unit={SESSION}", "--slice=user-1000.slice"),
        *("python3", CALL, "1004"),
    )
    (entry,) = until(lambda: told(calling, SESSION), "the denial in the session")
    assert entry["CGNETD_CGROUP"] == f"/user.slice/user-1000.slice/{SESSION}"
