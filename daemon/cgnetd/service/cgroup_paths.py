# SPDX-License-Identifier: Apache-2.0
"""Paths of cgroups by id, remembered beyond their removal: an event is often read after its cgroup has gone.

Must not know why anybody asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

REMEMBERED = 8192


class CgroupPaths:
    """The paths of cgroups below the root, "" for what cannot be found. The oldest ones are forgotten."""

    def __init__(self, root_id: int, path_of: Callable[[int], str | None], remembered: int = REMEMBERED) -> None:
        """`path_of`: asks the kernel for the path of a cgroup that exists, None if it does not."""
        self._root_id = root_id
        self._path_of = path_of
        self._remembered = remembered
        self._paths: OrderedDict[int, str] = OrderedDict()

    def learn(self, cgroup_id: int, parent_id: int, name: str) -> None:
        """A cgroup came into being. Its parent is still there if it is, so its path can be told for good."""
        parent = self.path(parent_id)
        if parent:
            self._remember(cgroup_id, f"{parent.rstrip('/')}/{name}")

    def path(self, cgroup_id: int) -> str:
        """The path below the root, which itself is "/"."""
        if cgroup_id == self._root_id:
            return "/"
        known = self._paths.get(cgroup_id)
        if known is not None:
            self._paths.move_to_end(cgroup_id)
            return known
        found = self._path_of(cgroup_id)
        if found is None:
            return ""
        self._remember(cgroup_id, found)
        return found

    def _remember(self, cgroup_id: int, path: str) -> None:
        self._paths[cgroup_id] = path
        self._paths.move_to_end(cgroup_id)
        while len(self._paths) > self._remembered:
            self._paths.popitem(last=False)
