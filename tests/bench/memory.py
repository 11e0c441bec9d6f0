# SPDX-License-Identifier: Apache-2.0
"""Kernel memory that is charged to who asks for it, by a memory cgroup of either hierarchy. Must not know of what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgnetd.errors import KernelError
from cgnetd.kernel.cgroup import find_root
from support import sandbox

_V1 = re.compile(r"^\S+ (\S+) cgroup \S*\bmemory\b", re.M)


class KernelMemory:
    """A cgroup of the memory controller; `path` None: the host has none that can be used, and nothing is told."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def enter(self, pid: int) -> None:
        """What the process asks for from now on is charged here."""
        if self.path:
            (self.path / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def kib(self) -> int | None:
        """What is charged now."""
        if not self.path:
            return None
        usage = self.path / "memory.kmem.usage_in_bytes"
        if usage.exists():
            return int(usage.read_text(encoding="ascii")) // 1024
        found = re.search(r"^kernel (\d+)$", (self.path / "memory.stat").read_text(encoding="ascii"), re.M)
        return int(found.group(1)) // 1024 if found else None


@contextmanager
def kernel_memory() -> Iterator[KernelMemory]:
    """A fresh one, removed with the processes in it."""
    parent = _parent()
    if not parent:
        yield KernelMemory(None)
        return
    path = parent / sandbox.fresh_name()
    path.mkdir()
    try:
        yield KernelMemory(path)
    finally:
        sandbox.remove_cgroup(path)


def _parent() -> Path | None:
    v1 = _V1.search(Path("/proc/self/mounts").read_text(encoding="utf-8"))
    if v1:
        return Path(v1.group(1))
    try:
        root = find_root()
    except KernelError:
        return None
    return root if "memory" in (root / "cgroup.subtree_control").read_text(encoding="ascii").split() else None
