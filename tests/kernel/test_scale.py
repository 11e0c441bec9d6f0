# SPDX-License-Identifier: Apache-2.0
"""A large host: what is loaded, labelled, changed, refused and taken away is right at any size.

CGNETD_SCALE=full makes it as large as hosts are said to be (minutes); times are not looked at, `make bench` does that.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cgnetd.cli.problems import DaemonError
from cgnetd.datapath.label import Label, unpack_entry, unpack_label
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.store import Store
from support import classbench
from support.crowd import CHANGING, Crowd, slice_name, unit_policy
from support.daemon import RealDaemon
from support.sandbox import PrivateCgroup

SMALL = Crowd(slices=20, common=10, own=70, units=24, sets=4, prefixes=10_000)
CROWD = Crowd() if os.environ.get("CGNETD_SCALE") == "full" else SMALL
EPERM = 1
PORT, OTHER_PORT = 443, 444


@pytest.fixture
def daemon(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[RealDaemon]:
    """Everything is in force when it is there."""
    with RealDaemon(tmp_path, private_cgroup.path, pin_dir) as made:
        CROWD.write(made.write_policy, tmp_path)
        for path in CROWD.paths():
            (private_cgroup.path / path).mkdir()
        made.start(object_dir=objects)
        yield made


def errno_of(cgroup: PrivateCgroup, address: str, port: int = PORT) -> int:
    """What connecting a UDP socket from inside a cgroup got; whether there is a way to the address does not matter."""

    def call() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return made.connect_ex((address, port))

    found: int = cgroup.call(call)
    return found


def is_denied(cgroup: PrivateCgroup, address: str, port: int = PORT) -> bool:
    return errno_of(cgroup, address, port) == EPERM


def labels_in_force(pin_dir: Path, root: Path) -> dict[int, tuple[int, Label]]:
    """Generation and label of each cgroup that has one, by id, in the slot in force."""
    with CgroupRoot(root) as tree, Store.open(pin_dir, tree, create=False) as store:
        active = store.control().active
        return {i: unpack_label(unpack_entry(entry)[active]) for i, entry in store.labels().items()}


def chains(daemon: RealDaemon, pin_dir: Path) -> set[tuple[int, ...]]:
    """The different chains of all labels: one a cgroup, of the generation in force."""
    found = labels_in_force(pin_dir, daemon.root_path)
    assert set(found) == {os.stat(path).st_ino for path, _, _ in os.walk(daemon.root_path)}
    assert {generation for generation, _ in found.values()} == {daemon.ask("status")["generation"]}
    return {label.policies for _, label in found.values()}


def test_every_cgroup_of_a_crowd_has_its_chain_and_new_ones_get_theirs(
    daemon: RealDaemon, private_cgroup: PrivateCgroup, pin_dir: Path
) -> None:
    status = daemon.ask("status")
    assert (status["enforcing"], status["problems"], status["generation"]) == (True, [], 1)
    assert len(status["policies"]) == CROWD.policies
    assert (status["governed_cgroups"], status["cgroups"]) == (CROWD.cgroups, CROWD.cgroups + 1)
    before = chains(daemon, pin_dir)
    assert len(before) == CROWD.chains + 1  # the root's is empty
    fresh = private_cgroup.child(f"{slice_name(0)}/own0-again.slice/common1.service")
    assert is_denied(fresh, CHANGING)
    assert not is_denied(fresh, CHANGING, OTHER_PORT)
    assert chains(daemon, pin_dir) == before


def test_verdicts_of_large_sets_are_right(daemon: RealDaemon, private_cgroup: PrivateCgroup) -> None:
    source = random.Random(1)
    for number in range(CROWD.sets):
        listed = source.sample(list(CROWD.prefixes_of(number)), 5)
        unit = private_cgroup.child(f"{slice_name(number)}/common0.service")
        outside = private_cgroup.child(f"{slice_name(CROWD.sets)}/common0.service")
        for network in listed:
            first, last = network.replace("0/24", "0"), network.replace("0/24", "255")
            above = last.replace(".255", ".0").split(".")
            above[2] = str(int(above[2]) + 1)  # sets have even networks only
            assert [is_denied(unit, address) for address in (first, last, ".".join(above))] == [True, True, False]
            assert not is_denied(outside, first)


def test_one_changed_rule_changes_that_verdict_and_nothing_else(
    daemon: RealDaemon, private_cgroup: PrivateCgroup, pin_dir: Path
) -> None:
    changed = private_cgroup.child(f"{slice_name(0)}/own1.service")
    same = private_cgroup.child(f"{slice_name(0)}/own2.service")
    before = chains(daemon, pin_dir)
    for port, other in ((OTHER_PORT, PORT), (PORT, OTHER_PORT)):
        change = partial(daemon.write_policy, "own1.yaml", unit_policy("own1", port))
        assert daemon.reload_after(change)["changed"] is True
        assert (is_denied(changed, CHANGING, port), is_denied(changed, CHANGING, other)) == (True, False)
        assert (is_denied(same, CHANGING, PORT), is_denied(same, CHANGING, OTHER_PORT)) == (True, False)
        assert chains(daemon, pin_dir) == before


def test_a_changed_set_is_in_force_where_it_is_used(
    daemon: RealDaemon, private_cgroup: PrivateCgroup, tmp_path: Path
) -> None:
    unit = private_cgroup.child(f"{slice_name(1)}/common0.service")
    before, after = set(CROWD.prefixes_of(1)), set(CROWD.prefixes_of(1, seed=1))
    gone, come = (next(iter(found)).replace("/24", "") for found in (before - after, after - before))
    assert (is_denied(unit, gone), is_denied(unit, come)) == (True, False)
    assert daemon.reload_after(lambda: CROWD.write_set(1, tmp_path, seed=1))["changed"] is True
    assert (is_denied(unit, gone), is_denied(unit, come)) == (False, True)
    other = next(CROWD.prefixes_of(0)).replace("/24", "")
    assert is_denied(private_cgroup.child(f"{slice_name(0)}/common0.service"), other)


def test_what_multiplies_is_refused_by_name_and_all_else_stays(
    daemon: RealDaemon, private_cgroup: PrivateCgroup, pin_dir: Path
) -> None:
    before = labels_in_force(pin_dir, daemon.root_path)
    daemon.write_policy("nested.yaml", classbench.nested_text(5_000))
    with pytest.raises(DaemonError, match="nested") as refused:
        daemon.ask("reload")
    assert [Path(problem.file).name for problem in refused.value.problems] == ["nested.yaml"]
    assert daemon.ask("status")["generation"] == 1
    assert labels_in_force(pin_dir, daemon.root_path) == before
    assert is_denied(private_cgroup.child(f"{slice_name(0)}/own0.service"), CHANGING)


def test_nothing_is_left_of_cgroups_and_policies_that_went(
    daemon: RealDaemon, private_cgroup: PrivateCgroup, pin_dir: Path
) -> None:
    for path in reversed(list(CROWD.paths())):
        (private_cgroup.path / path).rmdir()
    assert set(labels_in_force(pin_dir, daemon.root_path)) == {private_cgroup.id}
    for path in daemon.policy_dir.iterdir():
        path.unlink()
    daemon.ask("reload")
    daemon.ask("reload")  # the pass behind the one that puts it in force takes the rest away
    with CgroupRoot(daemon.root_path) as tree, Store.open(pin_dir, tree, create=False) as store:
        assert store.labels() == {}
        for slot in (0, 1):
            with store.slot(slot) as view:
                assert view.empty
    daemon.ask("flush")
    assert not pin_dir.exists()
