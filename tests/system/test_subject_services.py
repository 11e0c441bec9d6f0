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


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[Service]:
    with governing(machine, POLICIES) as made:
        yield made


@pytest.fixture
def callers(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with Callers.on(service.machine, tmp_path_factory.mktemp("native")) as made:
        yield made


def field(name: str, unit: str) -> str:
    return f"{name}={unit}"


@pytest.mark.parametrize("name", ["plain.service", "bare.service", r"es\x2dcaped.service", "n1y.service"])
def test_service_is_governed_by_its_name(callers: Callers, name: str) -> None:
    callers.once(name)
    assert callers.start(name) == GOVERNED
    assert {one["OBJECT_SYSTEMD_UNIT"] for one in journal_tells(callers.machine, f"--unit={name}")} == {name}


@pytest.mark.parametrize("name", ["plainer.service", "es-caped.service", "n1x.service", "nxy.service"])
def test_service_of_another_name_is_free(callers: Callers, name: str) -> None:
    callers.once(name)
    assert callers.start(name) == FREE
