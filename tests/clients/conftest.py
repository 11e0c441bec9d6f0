# SPDX-License-Identifier: Apache-2.0
"""The mark, the programs in the kernel, and one stage with its web and name server for all clients."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.errors import CgnetdError
from cgnetd.kernel import features
from clients import policies
from clients.policies import DNS, FAMILIES, WEB, Detour, Family
from clients.stage import Stage, program, stop

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernel)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Families and detours by their names."""
    if isinstance(val, Family):
        return f"ipv{val.table or 4}"
    return val.name if isinstance(val, Detour) else None


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, objects: Path) -> Iterator[Stage]:
    """Redirects in force, and behind them HTTP and DNS servers that tell how they were reached."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    try:
        features.probe()
    except CgnetdError as error:
        pytest.skip(str(error))
    program("iproute2", "ip")
    with Stage(tmp_path_factory.mktemp("stage"), objects) as made:
        places = [(family.actual, WEB.actual) for family in FAMILIES]
        places += [(origin, WEB.asked) for detour in policies.DETOURS for origin in detour.origins]
        words = [str(word) for place in places for word in place]
        wanted = [(f"tcp{'6' if ':' in host else ''}", port) for host, port in places]
        wanted += [(f"{kind}{family.table}", DNS.actual) for kind in ("tcp", "udp") for family in FAMILIES]
        web = made.serve([sys.executable, "-m", "clients.web", str(DNS.actual), *words], wanted)
        yield made
        stop(web)
