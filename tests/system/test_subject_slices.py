# SPDX-License-Identifier: Apache-2.0
"""Slices, scopes, cgroup paths and what is below units as subjects, and units that go from one slice to another."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from beds.machine import Machine
from system.service import Service
from system.subjects import DENIED, DIAL, FREE, GOVERNED, Callers, got, governing, journal_tells, policy

POLICIES = "".join(
    (
        policy("walled", "{slices: [walled]}"),
        policy("outer", "{slices: [outer.slice], not: {slices: [outer-open]}}"),
        policy("template-slice", r"{slices: ['system-my\x2djob.slice']}"),
        policy("scope", '{units: ["job-*.scope"]}'),
        policy("paths", '{cgroups: ["/system.slice/pathed.service", "/machine.slice/**"]}'),
        policy("delegated", "{units: [delegated]}"),
        policy("part", "{cgroups: [/system.slice/parted.service/inner]}"),
        policy("bound", "{slices: [bound]}", extra="tier: admin"),
        policy("freed", "{units: [freed]}", extra="priority: 0").replace(f"deny, errno: {DENIED}", "allow"),
    )
)
OWN = "own=/sys/fs/cgroup$(sed -n s,^0::,,p /proc/self/cgroup)"
# What a service with a part of the cgroup tree to itself may do.
IN_CHILD = f"""sh -c '{OWN.replace("$", "$$")}; mkdir -p $$own/inner/most && {DIAL} \
&& echo 0 > $$own/inner/cgroup.procs && {DIAL} && echo 0 > $$own/inner/most/cgroup.procs && {DIAL}'"""


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[Service]:
    with governing(machine, POLICIES) as made:
        yield made


@pytest.fixture(scope="module")
def callers(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with Callers.on(service.machine, tmp_path_factory.mktemp("native")) as made:
        yield made


def test_slice_governs_all_its_units_and_nested_slices(callers: Callers) -> None:
    slices = {"walled.slice": GOVERNED, "walled-in.slice": GOVERNED, "walled-in-deep.slice": GOVERNED}
    slices |= {"unwalled.slice": FREE, "un-walled.slice": FREE}
    for number, (name, expected) in enumerate(slices.items()):
        assert callers.transient(f"w{number}.service", f"--slice={name}") == expected, name


def test_nested_slice_is_taken_away_by_not(callers: Callers) -> None:
    assert callers.transient("o1.service", "--slice=outer-shut.slice") == GOVERNED
    assert callers.transient("o2.service", "--slice=outer-open.slice") == FREE
    assert callers.transient("o3.service", "--slice=outer-open-deep.slice") == FREE


def test_slice_of_a_template_governs_its_instances(callers: Callers) -> None:
    """Where systemd puts instances: in a slice of the template, a dash in its name escaped."""
    callers.once("my-job@.service")
    callers.once("my@.service")
    assert callers.start("my-job@1.service") == GOVERNED
    assert callers.start("my@job.service") == FREE


def test_unit_that_is_moved_to_another_slice_is_governed_there(callers: Callers) -> None:
    callers.resident("mover.service")
    assert callers.start("mover.service") == FREE
    callers.write("mover.service", "[Service]\nSlice=walled.slice\n", drop_in=True)
    assert callers.again("mover.service") == FREE  # moves when it is started anew, not before
    assert callers.start("mover.service", "restart") == GOVERNED
    callers.write("mover.service", "[Service]\nSlice=free.slice\n", drop_in=True)
    assert callers.start("mover.service", "restart") == FREE


@pytest.mark.parametrize(("name", "expected"), [("job-7.scope", GOVERNED), ("jobs-7.scope", FREE)])
def test_scope_is_governed_by_its_name(callers: Callers, name: str, expected: str) -> None:
    words = ("systemd-run", "--quiet", "--scope", f"--unit={name}", *DIAL.split())
    assert got(callers.machine.run(*words)) == expected
    if expected == GOVERNED:
        told = journal_tells(callers.machine, f"--unit={name}")
        assert {one["OBJECT_SYSTEMD_UNIT"] for one in told} == {name}


def test_scope_of_a_machine_is_governed_by_path(callers: Callers) -> None:
    words = ("systemd-run", "--quiet", "--scope", "--slice=machine.slice", "--property=Delegate=yes")
    payload = f"{OWN}; mkdir $own/payload && echo 0 > $own/payload/cgroup.procs"
    told = callers.machine.run(*words, r"--unit=machine-a\x2db.scope", "sh", "-c", f"{payload} && exec {DIAL}")
    assert got(told) == GOVERNED


def test_path_governs_the_cgroup_there_and_no_other_of_that_name(callers: Callers) -> None:
    assert callers.transient("pathed.service") == GOVERNED
    assert callers.transient("pathed.service", "--slice=elsewhere.slice") == FREE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("delegated.service", [GOVERNED, GOVERNED, GOVERNED]),
        ("parted.service", [FREE, GOVERNED, GOVERNED]),
        ("undelegated.service", [FREE, FREE, FREE]),
    ],
)
def test_what_a_delegated_unit_makes_below_itself_is_governed(callers: Callers, name: str, expected: list[str]) -> None:
    callers.once(name, "Delegate=yes", start=IN_CHILD)
    callers.machine.run("systemctl", "start", name)
    assert callers.lines(name) == expected
    if GOVERNED in expected:
        told = journal_tells(callers.machine, f"--unit={name}")
        assert {one["OBJECT_SYSTEMD_UNIT"] for one in told} == {name}


def test_main_process_in_a_subgroup_of_its_own_is_governed(callers: Callers) -> None:
    """DelegateSubgroup= of newer ones; older ones warn and start the process in the unit's own cgroup."""
    callers.once("delegated.service", "Delegate=yes", "DelegateSubgroup=main")
    assert callers.start("delegated.service") == GOVERNED


def test_admin_policy_of_a_slice_binds_what_a_unit_of_it_would_allow(callers: Callers) -> None:
    assert callers.transient("freed.service", "--slice=bound.slice") == GOVERNED
    assert callers.transient("freed.service") == FREE


@pytest.mark.parametrize(
    ("file", "unit", "exit_code"),
    [
        ("where.service", "where.service", 0),
        ("where@.service", "where@a.service", 0),
        ("my-job@.service", r"my-job@a\x2db.service", 1),
    ],
)
def test_unit_that_does_not_run_is_explained_where_systemd_puts_it(
    callers: Callers, file: str, unit: str, exit_code: int
) -> None:
    callers.once(file, start="sed -n s,^0::,,p /proc/self/cgroup")
    path = callers.start(unit)
    asker = ("systemd-run", "--quiet", "--wait", "--pipe")  # who asks for cgroups by name has to be in the tree
    done = callers.machine.try_run(*asker, "cgnetctl", "explain", "--json", unit, "connect", "tcp", "[::1]:2222")
    told = json.loads(done.stdout)
    assert (told["cgroup"], done.returncode) == (path, exit_code)
