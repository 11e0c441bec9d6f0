# SPDX-License-Identifier: Apache-2.0
"""Cgroups where more policies meet than a label holds, so that every call is denied: found before that happens.

Tries one cgroup for each thing that subjects name; a crowd that needs a place which no subject names is not found. Must
not know of the daemon, the kernel or the cgroup tree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from cgnetd.cli.subject import assumed_path
from cgnetd.datapath.abi import CHAIN_MAX
from cgnetd.datapath.compile import Image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import child_label, root_label
from cgnetd.errors import Problem
from cgnetd.policy.types import Pattern, PatternKind, PolicySet

RULE = "overflow"
_USER = 1000
_CLASS = re.compile(r"\[(?!!)(.).*?\]")


def can_be_crowded(policy_set: PolicySet) -> bool:
    """Whether there are enough policies at all."""
    return len(policy_set.policies) > CHAIN_MAX


def is_crowded(image: Image, components: Sequence[str]) -> bool:
    """Whether more policies meet in the cgroup at this path than fit."""
    reader = ImageReader(image.cells)
    label = root_label(reader)
    for name in components:
        label = child_label(reader, label, os.fsencode(name))
    return label.overflow


def crowds(policy_set: PolicySet, image: Image) -> tuple[Problem, ...]:
    """A warning for each crowded cgroup, at the first policy that names it."""
    if not can_be_crowded(policy_set):
        return ()
    found: dict[str, Problem | None] = {}
    for policy in policy_set.policies:
        for path in map(_example, policy.subject.match):
            if path not in found:
                crowded = is_crowded(image, [name for name in path.split("/") if name])
                where = policy.where
                found[path] = Problem(where.file, where.line, where.column, "", message(path)) if crowded else None
    return tuple(sorted(problem for problem in found.values() if problem))


def message(path: str) -> str:
    return (
        f"every call in {path} will be denied (rule {RULE}): more than {CHAIN_MAX} policies govern it, or are kept "
        "from it by not; merge policies, or narrow subjects"
    )


def _example(pattern: Pattern) -> str:
    """The path of a cgroup that the pattern matches, or nearly."""
    name = _CLASS.sub(r"\1", pattern.glob).replace("**", "x").replace("*", "x").replace("?", "x")
    if pattern.kind is PatternKind.PATH:
        return name
    if pattern.kind is PatternKind.USER_UNIT:
        return f"/user.slice/user-{_USER}.slice/user@{_USER}.service/{name}"
    return assumed_path(name, _USER)
