# SPDX-License-Identifier: Apache-2.0
"""People's logins as subjects: their slices, sessions, service managers and what these run. Real logins, by PAM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beds import logins, trees
from beds.machine import Machine
from system.conftest import Boot
from system.service import Service
from system.subjects import DIAL, FREE, GOVERNED, Callers, got, governing, journal_tells, policy

USERS = {"alice": 1001, "bob": 1002, "carol": 1003, "dave": 1004, "erin": 1005, "frank": 1006}
POLICIES = "".join(
    (
        policy("name", "{users: [alice]}"),
        policy("number", "{users: [1005], not: {userUnits: [spared.service]}}"),
        policy(
            "user-units",
            '{userUnits: [app-x, "each@*.service", "run-x-*.service", "job-*.scope", walled.slice, odd.socket]}',
        ),
        policy("manager", "{units: [user@1003.service]}"),
        policy("sessions", '{cgroups: ["/user.slice/user-1004.slice/session-*.scope"]}'),
        policy("same-name", "{units: [same.service]}"),
    )
)
UNIT = f"""\
[Service]
Type=oneshot
StandardOutput=append:/var/lib/subjects/%u-%n
ExecStart={DIAL}
"""


@pytest.fixture(scope="module")
def service(boot: Boot, distro: trees.Distro) -> Iterator[Service]:
    """A machine where people can log in."""

    def prepare(root: Path) -> None:
        logins.add(root, distro)
        units = root / "etc/systemd/user"
        units.mkdir(parents=True, exist_ok=True)
        for name in (
            "app-x.service",
            "app-y.service",
            "each@.service",
            "same.service",
            "spared.service",
            "odd.service",
        ):
            (units / name).write_text(UNIT, encoding="utf-8")
        for name in ("walled", "walled-in"):
            text = UNIT.replace("[Service]", f"[Service]\nSlice={name}.slice")
            (units / f"in-{name}.service").write_text(text, encoding="utf-8")
        command = f"ExecStartPre=/bin/sh -c '{DIAL} >> /var/lib/subjects/%u-odd.socket'"
        (units / "odd.socket").write_text(f"[Socket]\nListenStream=%t/odd\n{command}\n", encoding="utf-8")

    with boot(prepare) as machine:
        for name, uid in USERS.items():
            machine.run("useradd", "--create-home", f"--uid={uid}", "--shell=/bin/bash", name)
        with governing(machine, POLICIES) as made:
            yield made


@pytest.fixture(scope="module")
def callers(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with Callers.on(service.machine, tmp_path_factory.mktemp("native")) as made:
        made.machine.run("loginctl", "enable-linger", *USERS)
        made.machine.run("systemctl", "start", *(f"user@{uid}.service" for uid in USERS.values()))
        yield made


def started(callers: Callers, user: str, unit: str) -> str:
    """What a user's unit gets that the user's manager starts."""
    told = f"{user}-{unit}"
    before = len(callers.lines(told))
    callers.machine.run("systemctl", "--user", f"--machine={user}@.host", "start", unit)
    return callers.next(told, before)


def logged_in(machine: Machine, user: str, command: str) -> str:
    return machine.run("runuser", "--login", user, "--command", command).strip()


@pytest.mark.parametrize(
    ("user", "expected"),
    [("alice", GOVERNED), ("bob", FREE), ("carol", FREE), ("dave", GOVERNED), ("erin", GOVERNED), ("frank", FREE)],
)
def test_session_is_governed(callers: Callers, user: str, expected: str) -> None:
    path, line = logged_in(callers.machine, user, f"sed -n s,^0::,,p /proc/self/cgroup; {DIAL}").splitlines()
    slice_path, _, scope = path.rpartition("/")
    assert slice_path == f"/user.slice/user-{USERS[user]}.slice"
    assert scope.startswith("session-")
    assert got(line) == expected
    if expected == GOVERNED:
        told = journal_tells(callers.machine, f"--unit={scope}")
        assert {(one["OBJECT_SYSTEMD_UNIT"], one["CGNETD_UID"]) for one in told} == {(scope, str(USERS[user]))}


@pytest.mark.parametrize(
    ("user", "unit", "expected"),
    [
        ("alice", "app-y.service", GOVERNED),
        ("bob", "app-y.service", FREE),
        ("carol", "app-y.service", GOVERNED),
        ("dave", "app-y.service", FREE),
        ("erin", "app-y.service", GOVERNED),
        ("erin", "spared.service", FREE),
        ("frank", "app-x.service", GOVERNED),
        ("frank", "each@1.service", GOVERNED),
        ("frank", "in-walled.service", GOVERNED),
        ("frank", "in-walled-in.service", GOVERNED),
        ("frank", "odd.socket", GOVERNED),
        ("frank", "odd.service", FREE),
    ],
)
def test_unit_of_a_user_is_governed(callers: Callers, user: str, unit: str, expected: str) -> None:
    assert started(callers, user, unit) == expected
    if expected == GOVERNED:
        manager = f"user@{USERS[user]}.service"
        told = journal_tells(callers.machine, f"OBJECT_SYSTEMD_USER_UNIT={unit}", f"OBJECT_SYSTEMD_UNIT={manager}")
        assert {one["CGNETD_UID"] for one in told} == {str(USERS[user])}


def test_unit_of_a_user_is_not_the_system_unit_of_that_name(callers: Callers) -> None:
    assert started(callers, "frank", "same.service") == FREE
    callers.once("same.service")
    assert callers.start("same.service") == GOVERNED


@pytest.mark.parametrize(("scope", "expected"), [("job-1.scope", GOVERNED), ("work-1.scope", FREE)])
def test_scope_of_a_user_is_governed(callers: Callers, scope: str, expected: str) -> None:
    command = f"systemd-run --user --scope --quiet --unit={scope} {DIAL}"
    assert got(logged_in(callers.machine, "frank", command)) == expected


@pytest.mark.parametrize(("unit", "expected"), [("run-x-1.service", GOVERNED), ("run-y-1.service", FREE)])
def test_transient_unit_of_a_user_is_governed(callers: Callers, unit: str, expected: str) -> None:
    command = f"systemd-run --user --wait --pipe --quiet --unit={unit} {DIAL}"
    assert got(logged_in(callers.machine, "bob", command)) == expected


def test_login_by_a_unit_is_governed_as_the_session_that_it_becomes(callers: Callers) -> None:
    login = ("--property=PAMName=login", "--property=User=alice")
    assert callers.transient("login.service", *login) == GOVERNED


def test_system_service_that_runs_as_a_user_is_not_a_login(callers: Callers) -> None:
    assert callers.transient("as-alice.service", "--property=User=alice") == FREE
