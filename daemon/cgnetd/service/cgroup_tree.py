# SPDX-License-Identifier: Apache-2.0
"""The tree of cgroups found without walking it: what is known of it, what came since, and whether that is all.

Must not know what a label says, nor who asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cgnetd.kernel.cgroup import Cgroup, CgroupRoot

_FEW = 256  # unknown cgroups are found one by one, which takes three times as long as in a walk


def follow(
    root: CgroupRoot, known: Mapping[int, Cgroup], labelled: Collection[int], descendants: int
) -> dict[int, Cgroup] | None:
    """The tree, parents before children, by id; None if only a walk can tell.

    `known`: as it was seen before. `labelled`: the ids that have a label by now; every cgroup that came since got one.
    `descendants`: how many there were below the root a moment before. If as many are found, none is missing.
    """
    fresh = [cgroup_id for cgroup_id in labelled if cgroup_id not in known]
    if len(fresh) > _FEW:
        return None
    found = {cgroup_id: cgroup for cgroup_id, cgroup in known.items() if cgroup_id in labelled}
    if fresh and not _add(root, found, fresh):
        return None
    return found if len(found) == descendants + 1 else None


def _add(root: CgroupRoot, tree: dict[int, Cgroup], fresh: Collection[int]) -> bool:
    """Put the unknown ones into the tree. False if the parent of one is not in there: it went, or has no label."""
    paths = {cgroup_id: path for cgroup_id in fresh if (path := root.path_of(cgroup_id))}
    ids = {cgroup.path: cgroup.id for cgroup in tree.values()}
    for cgroup_id, path in sorted(paths.items(), key=lambda one: one[1].count("/")):
        above, _, name = path.rpartition("/")
        parent_id = ids.get(above or "/")
        if parent_id is None:
            return False
        tree[cgroup_id] = Cgroup(cgroup_id, parent_id, name, path)
        ids[path] = cgroup_id
    return True
