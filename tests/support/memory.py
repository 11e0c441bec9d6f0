# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup of a test, of either version of cgroups. Must not know what is put into it.

What the kernel allocates for a process counts as its memory too, the maps that it makes among it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgnetd.kernel.cgroup import find_root
from cgnetd.kernel.mounts import parse_mountinfo
from support import sandbox


@dataclass(frozen=True)
class MemoryCgroup:
    """`limit_name` and `used_name`: its files, which differ between the versions."""

    path: Path
    limit_name: str
    used_name: str
    unlimited: str

    @property
    def used(self) -> int:
        """Bytes. What is freed is told late: the kernel frees maps in the background."""
        return int((self.path / self.used_name).read_text())

    def enter(self, pid: int) -> None:
        """From now on what the process allocates is counted here; what it has stays where it was counted."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def limit(self, spare: int | None) -> None:
        """No more than so many bytes besides what is used now; None: as many as there are."""
        wanted = self.unlimited if spare is None else str(self.used + spare)
        (self.path / self.limit_name).write_text(wanted)


@contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup | None]:
    """None where the kernel has no memory controller, or does not let us use it."""
    old, new = _first_version(), find_root()
    if old is not None:
        with _made(old) as path:
            yield MemoryCgroup(path, "memory.limit_in_bytes", "memory.usage_in_bytes", "-1")
        return
    with _enabled(new) as is_enabled:
        if not is_enabled:
            yield None
            return
        with _made(new) as path:
            yield MemoryCgroup(path, "memory.max", "memory.current", "max")


def _first_version() -> Path | None:
    """Where the controller is mounted by itself, as it can be beside cgroup v2."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    points = (mount.point for mount in parse_mountinfo(text, "cgroup"))
    return next((point for point in points if (point / "memory.usage_in_bytes").exists()), None)


@contextmanager
def _enabled(root: Path) -> Iterator[bool]:
    """The controller switched on for what is below the root of the tree, and off again if it was."""
    switch = root / "cgroup.subtree_control"
    was_on = "memory" in switch.read_text().split()
    try:
        switch.write_text("+memory")
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        if not was_on:
            switch.write_text("-memory")


@contextmanager
def _made(above: Path) -> Iterator[Path]:
    path = above / sandbox.fresh_name()
    path.mkdir()
    try:
        yield path
    finally:
        sandbox.remove_cgroup(path)
