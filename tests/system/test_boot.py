# SPDX-License-Identifier: Apache-2.0
"""What is in force when a machine boots with cgnetd enabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beds.machine import Machine
from system.conftest import Boot
from system.service import UNIT, Service

SHUT = 2222
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: early}
spec:
  subject: {units: [early.service]}
  egress: [{name: shut, action: deny, errno: EHOSTUNREACH}]
"""
# As early as anything starts that minds the order of packet filters.
EARLY = f"""\
[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/python3 /usr/lib/dial.py {SHUT}
StandardOutput=file:/run/early.txt
"""


def prepare(root: Path) -> None:
    for path, text in {
        "etc/cgnetd/policy.d/early.yaml": POLICY,
        "etc/systemd/system/early.service": EARLY,
        "usr/lib/dial.py": Service.DIAL[1],
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    wanted = root / "etc/systemd/system/sysinit.target.wants"
    wanted.mkdir()
    (wanted / UNIT).symlink_to(f"/usr/lib/systemd/system/{UNIT}")
    (wanted / "early.service").symlink_to("/etc/systemd/system/early.service")


@pytest.fixture(scope="module")
def booted(boot: Boot) -> Iterator[Machine]:
    with boot(prepare) as made:
        yield made


def test_early_unit_is_governed_from_its_first_call(booted: Machine) -> None:
    assert booted.path("/run/early.txt").read_text(encoding="utf-8") == "EHOSTUNREACH\n"


def test_everything_starts_in_an_order_that_exists(booted: Machine) -> None:
    assert booted.run("systemctl", "is-system-running") == "running\n"
    told = [one["MESSAGE"] for one in booted.journal("_PID=1")]
    assert not [line for line in told if "ordering cycle" in line]


def test_daemon_is_ready_before_the_network_is_prepared(booted: Machine) -> None:
    told = [one["MESSAGE"] for one in booted.journal("_PID=1")]
    ready = next(at for at, line in enumerate(told) if line.startswith(f"Started {UNIT}"))
    network = next(at for at, line in enumerate(told) if line.startswith("Reached target network-pre.target"))
    assert ready < network
