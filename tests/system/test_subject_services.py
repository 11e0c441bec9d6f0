# SPDX-License-Identifier: Apache-2.0
"""Services as subjects: by name and by glob, templates, escapes, aliases, all that a service starts, transient ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beds.machine import Machine
from system.service import Service, eventually
from system.subjects import DIAL, FREE, GOVERNED, Callers, governing, journal_tells, policy

POLICIES = "".join(
    (
        policy("plain", "{units: [plain.service, bare, timed, phases, phases-delegated, awake, brief]}"),
        policy("template", '{units: ["every@*.service"]}'),
        policy("instance", "{units: [some@a.service]}"),
        policy("escaped", r"{units: ['es\x2dcaped.service', 'path@srv-a\x2db.service']}"),
        policy("real", "{units: [real.service]}"),
        policy("alias", "{units: [nick.service]}"),
        policy("old-name", "{units: [old.service]}"),
        policy("masked", "{units: [masked.service]}"),
        policy("dynamic", "{units: [dynamic.service]}"),
        policy("transient", '{units: ["run-t-*.service"]}'),
        policy("one-of", '{units: ["n[0-9]?.service"], not: {units: [n1x.service]}}'),
        policy("mounts", r"{units: ['run-a\x2db.mount']}"),
    )
)


LATER = "/usr/local/lib/systemd/system"


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[Service]:
    with governing(machine, POLICIES) as made:
        yield made


@pytest.fixture(scope="module")
def callers(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with Callers.on(service.machine, tmp_path_factory.mktemp("native")) as made:
        yield made


def told_of(callers: Callers, unit: str) -> set[str]:
    """`journalctl -u UNIT` shows the denials of that unit and nobody else's; returns the paths of cgroups in them."""
    told = journal_tells(callers.machine, f"--unit={unit}")
    assert {one["OBJECT_SYSTEMD_UNIT"] for one in told} == {unit}
    return {one["CGNETD_CGROUP"] for one in told}


@pytest.mark.parametrize("name", ["plain.service", "bare.service", r"es\x2dcaped.service", "n1y.service"])
def test_service_is_governed_by_its_name(callers: Callers, name: str) -> None:
    callers.once(name)
    assert callers.start(name) == GOVERNED
    told_of(callers, name)


@pytest.mark.parametrize("name", ["plainer.service", "es-caped.service", "n1x.service", "nxy.service"])
def test_service_of_another_name_is_free(callers: Callers, name: str) -> None:
    callers.once(name)
    assert callers.start(name) == FREE


@pytest.mark.parametrize(
    ("template", "instance", "expected"),
    [
        ("every@.service", "every@a.service", GOVERNED),
        ("every@.service", r"every@srv-a\x2db.service", GOVERNED),
        ("some@.service", "some@a.service", GOVERNED),
        ("some@.service", "some@b.service", FREE),
        ("path@.service", r"path@srv-a\x2db.service", GOVERNED),
        ("path@.service", "path@srv-a-b.service", FREE),
    ],
)
def test_instance_is_governed_by_glob_and_by_name(
    callers: Callers, template: str, instance: str, expected: str
) -> None:
    callers.once(template)
    assert callers.start(instance) == expected
    if expected == GOVERNED:
        told_of(callers, instance)


def test_alias_governs_nothing_and_real_name_governs_all_the_same(callers: Callers, service: Service) -> None:
    """A unit has one cgroup, and that has the unit's real name, whatever name it was started by."""
    for real, alias in (("real.service", "other.service"), ("true.service", "nick.service")):
        callers.once(real, callers.output(real))
        callers.machine.run("ln", "-sf", real, f"/run/systemd/system/{alias}")
    callers.machine.run("systemctl", "daemon-reload")
    before = len(callers.lines("real.service"))
    callers.machine.run("systemctl", "start", "other.service")
    assert callers.next("real.service", before) == GOVERNED
    callers.machine.run("systemctl", "start", "nick.service")
    assert callers.next("true.service", 0) == FREE
    place = service.policy("alias", policy("late-alias", "{units: [nick.service]}"))
    service.machine.run("cgnetctl", "reload")
    told = [(one["file"], one["message"]) for one in service.status()["warnings"]]
    assert (
        place,
        '"nick.service" is another name of true.service and the name of no cgroup: write true.service',
    ) in told
    callers.machine.run("sh", "-c", "rm /run/systemd/system/other.service /run/systemd/system/nick.service")


def test_renamed_unit_is_governed_by_its_new_name_alone(callers: Callers, service: Service) -> None:
    callers.resident("old.service")
    assert callers.start("old.service") == GOVERNED
    callers.machine.run("mv", "/run/systemd/system/old.service", "/run/systemd/system/new.service")
    callers.machine.run("systemctl", "daemon-reload")
    assert callers.again("old.service") == GOVERNED  # what runs keeps its cgroup, though its file is gone
    callers.machine.run("systemctl", "stop", "old.service")
    assert callers.start("new.service") == FREE
    service.policy("renamed", policy("new-name", "{units: [new.service]}"))
    service.machine.run("cgnetctl", "reload")
    assert callers.again("new.service") == GOVERNED
    callers.machine.run("systemctl", "stop", "new.service")
    callers.remove("new.service")


def test_masked_unit_is_governed_as_long_as_it_runs_and_again_when_unmasked(callers: Callers) -> None:
    callers.resident("masked.service")
    run = callers.machine.run
    # A mask is a file of its own: what it masks must be in a directory that comes later.
    run("sh", "-c", f"mkdir -p {LATER}; mv /run/systemd/system/masked.service {LATER}; systemctl daemon-reload")
    assert callers.start("masked.service") == GOVERNED
    run("systemctl", "mask", "--runtime", "masked.service")
    assert callers.again("masked.service") == GOVERNED
    run("systemctl", "stop", "masked.service")
    assert callers.machine.try_run("systemctl", "start", "masked.service").returncode != 0
    run("systemctl", "unmask", "--runtime", "masked.service")
    assert callers.start("masked.service") == GOVERNED
    run("sh", "-c", f"systemctl stop masked.service; rm {LATER}/masked.service")


@pytest.mark.parametrize(("name", "line"), [("phases", ""), ("phases-delegated", "Delegate=yes")])
def test_every_command_of_a_service_is_governed(callers: Callers, name: str, line: str) -> None:
    """Those beside the main one are in a cgroup of their own, `.control`, if the unit is delegated."""
    unit = f"{name}.service"
    beside = [f"{key}={DIAL}" for key in ("ExecCondition", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost")]
    callers.resident(unit, line, f"ExecStartPre={DIAL}", f"ExecStartPre=+{DIAL}", *beside)
    callers.machine.run("systemctl", "start", unit)
    eventually(lambda: len(callers.lines(unit)) == 5, "what the main process got, which nobody waits for")
    callers.machine.run("systemctl", "reload", unit)
    callers.machine.run("systemctl", "stop", unit)
    assert callers.lines(unit) == [GOVERNED] * 8
    beside_main = {f"/system.slice/{unit}/.control"} if line else set()
    expected = {f"/system.slice/{unit}", *beside_main}
    eventually(lambda: told_of(callers, unit) >= expected, "denials of each cgroup")
    assert told_of(callers, unit) == expected


def test_service_without_a_user_of_its_own_is_governed(callers: Callers) -> None:
    callers.once("dynamic.service", "DynamicUser=yes", "PrivateTmp=yes", "PrivateUsers=yes")
    assert callers.start("dynamic.service") == GOVERNED
    told = journal_tells(callers.machine, "--unit=dynamic.service")
    assert {61184 <= int(one["CGNETD_UID"]) <= 65519 for one in told} == {True}


def test_service_is_governed_however_it_is_sandboxed(callers: Callers) -> None:
    boxes = ("ProtectControlGroups=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=")
    callers.once("plain.service", *boxes, "User=nobody", "RestrictNamespaces=yes", "SystemCallFilter=@system-service")
    assert callers.start("plain.service") == GOVERNED


def test_transient_service_is_governed_from_its_first_call(callers: Callers) -> None:
    assert callers.transient("run-t-1.service") == GOVERNED
    assert callers.transient("run-u-1.service") == FREE
    told_of(callers, "run-t-1.service")


def test_service_that_a_timer_starts_is_governed(callers: Callers) -> None:
    output = f"--property={callers.output('timed.service')}"
    callers.machine.run("systemd-run", "--quiet", "--unit=timed", "--on-active=0", output, "sh", "-c", DIAL)
    assert callers.next("timed.service", 0) == GOVERNED


def test_service_stays_governed_when_systemd_is_reloaded_and_executed_again(callers: Callers) -> None:
    callers.resident("awake.service")
    assert callers.start("awake.service") == GOVERNED
    for act in (lambda: callers.machine.run("systemctl", "daemon-reload"), callers.machine.reexecute):
        act()
        assert callers.again("awake.service") == GOVERNED
    callers.machine.run("systemctl", "set-property", "--runtime", "awake.service", "CPUWeight=50", "TasksMax=20")
    assert callers.again("awake.service") == GOVERNED
    assert callers.start("awake.service", "restart") == GOVERNED


def test_mount_is_governed_by_its_escaped_name(callers: Callers) -> None:
    """What mounts may well connect to a server: mount(8) runs a program of its own for many types."""
    helper = f'#!/bin/sh\n{DIAL} >> /var/lib/subjects/mount\nexec mount -i -t tmpfs none "$2"\n'
    callers.machine.write("/usr/sbin/mount.dial", helper, 0o755)
    for unit, where in ((r"run-a\x2db.mount", "/run/a-b"), ("run-a_b.mount", "/run/a_b")):
        callers.write(unit, f"[Mount]\nWhat=server:/exported\nWhere={where}\nType=dial\n")
        callers.machine.run("systemctl", "start", unit)
    assert callers.lines("mount") == [GOVERNED, FREE]
    told_of(callers, r"run-a\x2db.mount")
