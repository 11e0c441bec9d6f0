# SPDX-License-Identifier: Apache-2.0
"""What is in force when a machine boots with cgnetd enabled, and who is governed from its first call on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beds.machine import Machine
from system import subjects
from system.conftest import Boot
from system.service import UNIT, eventually
from system.subjects import DIAL, FREE, GOVERNED, Callers, journal_tells, policy

POLICIES = policy("boot", '{units: ["b-*.service"]}')
_EARLY = "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n"
# Unit files beyond what all have; each is wanted by sysinit.target, those that say nothing of it by multi-user.target.
UNITS = {
    "b-ordinary.service": "",
    "b-network.service": f"{_EARLY}After=network-pre.target\nBefore=network.target\n",
    "b-after.service": f"{_EARLY}After={UNIT}\n",
    "b-required.service": f"{_EARLY}After={UNIT}\nRequires={UNIT}\n",
    "b-before.service": f"{_EARLY}Before={UNIT}\n",
    "b-careful.service": f"{_EARLY}After={UNIT}\n[Service]\nExecStartPre=+sh -c 'cgnetctl status > /dev/null'\n",
}


@contextmanager
def booted_with(boot: Boot, scratch: Path, change: Callable[[Path], None] | None = None) -> Iterator[Callers]:
    """A machine that has booted with all these units and policies; `change` is the last one to prepare it."""

    def prepare(root: Path) -> None:
        subjects.install(root, scratch)
        units, policies = root / "etc/systemd/system", root / "etc/cgnetd/policy.d"
        for name, text in UNITS.items():
            target = "sysinit.target" if _EARLY in text else "multi-user.target"
            wanted = units / f"{target}.wants"
            wanted.mkdir(parents=True, exist_ok=True)
            running = f"[Service]\nType=exec\n{Callers.output(name)}\nStandardError=journal\nExecStart={DIAL} wait\n"
            (units / name).write_text(text + running, encoding="utf-8")
            (wanted / name).symlink_to(f"/etc/systemd/system/{name}")
        (units / "sysinit.target.wants" / UNIT).symlink_to(f"/usr/lib/systemd/system/{UNIT}")
        policies.mkdir(parents=True, exist_ok=True)
        (policies / "boot.yaml").write_text(POLICIES, encoding="utf-8")
        if change is not None:
            change(root)

    with boot(prepare) as machine:
        yield Callers(machine)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def booted(boot: Boot, scratch: Path) -> Iterator[Callers]:
    with booted_with(boot, scratch) as callers:
        yield callers


@pytest.mark.parametrize("name", ["b-ordinary", "b-network", "b-after", "b-required", "b-careful"])
def test_unit_is_governed_from_its_first_call(booted: Callers, name: str) -> None:
    unit = f"{name}.service"
    assert booted.next(unit, 0) == GOVERNED
    assert {one["OBJECT_SYSTEMD_UNIT"] for one in journal_tells(booted.machine, f"--unit={unit}")} == {unit}


def test_unit_that_starts_before_cgnetd_is_governed_as_soon_as_that_is_there(booted: Callers) -> None:
    """Nothing can be in force before: what enforces is in the kernel's memory, and that is new."""
    assert booted.next("b-before.service", 0) == FREE
    assert booted.again("b-before.service") == GOVERNED


def test_everything_starts_in_an_order_that_exists(booted: Callers) -> None:
    assert booted.machine.run("systemctl", "is-system-running") == "running\n"
    told = [one["MESSAGE"] for one in booted.machine.journal("_PID=1")]
    assert not [line for line in told if "ordering cycle" in line]


def test_daemon_is_ready_before_the_network_is_prepared(booted: Callers) -> None:
    told = [one["MESSAGE"] for one in booted.machine.journal("_PID=1")]
    ready = next(at for at, line in enumerate(told) if line.startswith(f"Started {UNIT}"))
    network = next(at for at, line in enumerate(told) if line.startswith("Reached target network-pre.target"))
    assert ready < network


def active(machine: Machine, unit: str) -> str:
    """Whether a unit runs, once no job for it is left."""
    eventually(lambda: not machine.run("systemctl", "list-jobs", "--no-legend", unit), f"end of jobs of {unit}")
    return machine.run("systemctl", "show", "--property=ActiveState", "--value", unit).strip()


@pytest.mark.parametrize(
    ("mistake", "required"),
    [("etc/cgnetd/cgnetd.yaml.d/bad.yaml", "inactive"), ("etc/cgnetd/policy.d/bad.yaml", "active")],
    ids=["settings", "policies"],
)
def test_careful_unit_does_not_start_when_nothing_is_in_force(
    boot: Boot, scratch: Path, mistake: str, required: str
) -> None:
    """Without cgnetd, Requires= holds units back; with a cgnetd that has no policies in force, asking it does."""

    def change(root: Path) -> None:
        (root / mistake).parent.mkdir(parents=True, exist_ok=True)
        (root / mistake).write_text("mistake: 1\n", encoding="utf-8")

    with booted_with(boot, scratch, change) as callers:
        machine = callers.machine
        assert callers.next("b-after.service", 0) == FREE
        assert active(machine, "b-after.service") == "active"
        assert active(machine, "b-required.service") == required
        assert active(machine, "b-careful.service") == "failed"
        assert callers.lines("b-careful.service") == []
