# SPDX-License-Identifier: Apache-2.0
"""systemd's published cases, made under systemd's settings, under a policy of cgnetd, and under neither: each line of
docs/systemd.md for real, and who tells of a denial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml

from beds.machine import Machine
from system.service import Service, eventually
from system.side_by_side import data
from system.side_by_side.data import CGNETD, SYSTEMD, Case
from system.side_by_side.stage import Stage, expected_side, is_framework_built_in

SECTIONS = tuple(data.sections())
CASES = [pytest.param(case, section.framework, id=case.name) for section in SECTIONS for case in section.cases]
BY_NAME = {case.name: case for case in data.cases()}
# Nobody says anything about these units before their process is connected.
LATER = replace(BY_NAME["deny-any"], name="later", properties=(), allowed=(), denied=("tcp 127.0.0.1",))
DENIAL_WORDS = ("127.0.0.1", "::1", "9999", "AF_INET", "denied", "EPERM", "not permitted", "EAFNOSUPPORT")


@pytest.fixture(scope="module")
def stage(machine: Machine) -> Iterator[Stage]:
    """All policies in force, everybody answering."""
    service = Service(machine)
    service.reset()
    made = Stage(service)
    try:
        made.set_up()
        made.enforce(data.cases())
        yield made
    finally:
        made.clean_up()
        service.reset()


@pytest.mark.parametrize("side", data.SIDES)
@pytest.mark.parametrize(("case", "needs_framework"), CASES)
def test_calls_get_what_the_page_says(stage: Stage, case: Case, needs_framework: bool, side: str) -> None:
    framework = is_framework_built_in(stage.machine)
    told_by = expected_side(case, side, framework=framework, needs_framework=needs_framework)
    assert stage.run(case, side) == {call: case.expected(told_by, call) for call in case.calls}


@pytest.mark.parametrize("name", ["deny-any", "bind-deny-any", "family-none"])
def test_systemd_tells_nobody_of_a_denied_call(stage: Stage, name: str) -> None:
    case = BY_NAME[name]
    stage.run(case, SYSTEMD)
    told = stage.service.journal(f"--unit={case.unit(SYSTEMD)}")
    assert {entry["_PID"] for entry in told} == {"1"}  # that it began and ended
    assert not [entry["MESSAGE"] for entry in told if any(word in entry["MESSAGE"] for word in DENIAL_WORDS)]


def test_cgnetd_tells_of_every_denied_destination_beside_the_unit(stage: Stage) -> None:
    case = BY_NAME["deny-any"]
    stage.run(case, CGNETD)

    def denied() -> set[str]:
        told = stage.service.journal(f"--unit={case.unit(CGNETD)}")
        return {entry.get("CGNETD_REMOTE_ADDRESS", "") for entry in told if entry.get("CGNETD_VERDICT") == "deny"}

    eventually(lambda: denied() >= {"127.0.0.1", "::1", "192.0.2.2", "2001:db8::2"}, "records of the denied calls")


def test_audit_policy_tells_what_it_would_deny(stage: Stage) -> None:
    case = BY_NAME["audit"]
    stage.run(case, CGNETD)

    def told() -> list[object]:
        entries = stage.service.journal(f"--unit={case.unit(CGNETD)}")
        return [entry for entry in entries if entry.get("CGNETD_SHADOW_VERDICT") == "deny"]

    assert {entry["CGNETD_VERDICT"] for entry in eventually(told, "the shadow denial")} == {"allow"}


def test_connection_ends_when_systemd_is_told_to_deny_its_address(stage: Stage) -> None:
    unit = LATER.unit(SYSTEMD)
    with stage.connected(LATER, SYSTEMD) as process:
        stage.machine.run("systemctl", "set-property", "--runtime", unit, "IPAddressDeny=any")
        assert stage.change(process) == "silence"


def test_connection_outlives_a_policy_that_denies_its_address(stage: Stage) -> None:
    with stage.connected(LATER, CGNETD) as process:
        stage.service.policy(LATER.name, yaml.safe_dump_all(LATER.documents()))
        stage.machine.run("cgnetctl", "reload")
        assert stage.change(process) == data.OK
    assert stage.run(LATER, CGNETD) == {"tcp 127.0.0.1": "EPERM"}
