# SPDX-License-Identifier: Apache-2.0
"""A swap for which the kernel has no memory changes nothing, wherever in it that is found, and is made when there is.

Maps count as memory of the process that makes them. It is in a memory cgroup that has room for some of its maps only,
so that making the next one fails with ENOMEM.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.governed import OPEN, SHUT, connect, eventually, policy
from support.memory import MemoryCgroup, memory_cgroup
from support.sandbox import PrivateCgroup
from support.starved import Starved, starved

PREFIXES = 480_000
SERVICES = 400
SMALL = 1 << 20  # for everything else that a pass makes the kernel allocate


@pytest.fixture
def memory() -> Iterator[MemoryCgroup]:
    with memory_cgroup() as made:
        if made is None:
            pytest.skip("no memory controller of cgroups")
        yield made


@pytest.fixture
def policy_dir(tmp_path: Path) -> Path:
    made = tmp_path / "policy.d"
    made.mkdir()
    (made / "app.yaml").write_text(policy(allowed=OPEN))
    return made


@pytest.fixture
def daemon(
    memory: MemoryCgroup, policy_dir: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path
) -> Iterator[Starved]:
    """Ended before the memory cgroup is removed, which would kill it."""
    with starved(policy_dir, pin_dir, private_cgroup.path, objects) as made:
        yield made


def large(directory: Path) -> str:
    """Allows another port, and has an image and live cells of some megabytes."""
    listed = directory / "listed.txt"
    listed.write_text("".join(f"{n >> 15 & 255}.{n >> 7 & 255}.{n << 1 & 255}.0/24\n" for n in range(PREFIXES)))
    services = "".join(
        f"---\napiVersion: cgnetd/v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec:\n"
        f"  addresses: [192.0.{n >> 8}.{n & 255}]\n  ports: [{{port: 80, protocol: tcp}}]\n"
        f"  backends: [{{address: 127.0.0.1}}]\n"
        for n in range(SERVICES)
    )
    rule = "  egress:\n    - {name: listed, action: deny, to: ['set:listed']}\n"
    words = f"---\napiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {{name: listed}}\nspec: {{files: [{listed}]}}\n"
    return policy(allowed=SHUT).replace("  egress:\n", rule) + words + services


def reached(app: PrivateCgroup) -> tuple[bool, bool]:
    """Whether a call to each of the two ports is let pass."""
    return connect(app, OPEN) == 0, connect(app, SHUT) == 0


def test_swap_without_memory_for_its_maps_changes_nothing(
    daemon: Starved, memory: MemoryCgroup, policy_dir: Path, private_cgroup: PrivateCgroup, pin_dir: Path
) -> None:
    app = private_cgroup.child("app")
    assert daemon.ask("look")["loaded"]
    before = daemon.ask("look")
    pins = sorted(pin_dir.rglob("*"))
    (policy_dir / "app.yaml").write_text(large(policy_dir.parent))
    sizes = daemon.ask("read")
    assert min(sizes["image"], sizes["live"]) > 2 * SMALL
    daemon.ask("hoard")
    memory.enter(daemon.pid)
    # Not even the first map, then all but the last one.
    for spare, what in ((SMALL, "create map cgn_image"), (sizes["image"] + SMALL, "create map cgn_live")):
        memory.limit(spare)
        refused = daemon.ask("look")
        assert what in refused["error"]
        assert "Cannot allocate memory" in refused["error"]
        assert {**refused, "error": ""} == before
        assert sorted(pin_dir.rglob("*")) == pins
        assert reached(app) == (True, False)
        eventually(lambda: memory.used < SMALL, "what was made before it failed is freed")
    memory.limit(None)
    assert daemon.ask("look")["loaded"] == before["number"] + 1
    assert reached(app) == (False, True)
    assert memory.used > sizes["image"] + sizes["live"]
