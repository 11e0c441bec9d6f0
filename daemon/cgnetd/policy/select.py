# SPDX-License-Identifier: Apache-2.0
"""Who is governed by what: the policies of a cgroup, in order of evaluation. The reference for the subject automaton.

Written to be read beside the policy language, not to be fast. Must not know how cgroups are found or labelled.
"""

from __future__ import annotations

import re

from .glob import match, match_path
from .types import Pattern, PatternKind, Policy, PolicySet, Subject, Tier

_USER_MANAGER = re.compile(r"user@[0-9]+\.service")


def select(policy_set: PolicySet, path: tuple[str, ...]) -> tuple[Policy, ...]:
    """The policies that govern the cgroup at `path` (names below the root; () is the root), in order of evaluation.

    Admin policies come first, the one nearest the root leading; then normal, then baseline ones, the one nearest the
    cgroup leading; at the same depth priority and name decide. A subject that matches several cgroups on the path
    counts at the shallowest in the admin tier and at the deepest elsewhere.
    """
    governing = [(policy, depth) for policy in policy_set.policies if (depth := _depth(policy, path)) is not None]
    governing.sort(key=lambda item: _order(*item))
    return tuple(policy for policy, _ in governing)


def _order(policy: Policy, depth: int) -> tuple[int, int, tuple[int, int, str]]:
    return (policy.tier, depth if policy.tier is Tier.ADMIN else -depth, policy.order)


def _depth(policy: Policy, path: tuple[str, ...]) -> int | None:
    """The depth that orders the policy among those that govern `path`; None if it does not govern it."""
    here_and_above = [path[:depth] for depth in range(len(path) + 1)]
    if any(matches(pattern, cgroup) for cgroup in here_and_above for pattern in policy.subject.exclude):
        return None
    depths = [len(cgroup) for cgroup in here_and_above if any(matches(p, cgroup) for p in policy.subject.match)]
    if not depths:
        return None
    return min(depths) if policy.tier is Tier.ADMIN else max(depths)


def matches(pattern: Pattern, path: tuple[str, ...]) -> bool:
    """Whether the pattern matches this very cgroup (not one above it)."""
    if pattern.kind is PatternKind.PATH:
        return match_path(pattern.glob, path)
    if not path or _below_user_manager(path) != (pattern.kind is PatternKind.USER_UNIT):
        return False
    return match(pattern.glob, path[-1])


def _below_user_manager(path: tuple[str, ...]) -> bool:
    """Whether a user's service manager is a proper ancestor: what it runs are user units."""
    return any(_USER_MANAGER.fullmatch(name) for name in path[:-1])


def could_share(one: Subject, other: Subject) -> bool:
    """Whether there can be a cgroup that both govern, as far as names tell: units that are not slices hold no other
    units, unless a whole system runs in one. For advice only."""
    return any(_could_meet(first, second) for first in one.match for second in other.match)


_LEAVES = (".service", ".scope", ".socket", ".mount", ".swap")
_MAGIC = frozenset("*?[")


def _could_meet(one: Pattern, other: Pattern) -> bool:
    if one.kind is PatternKind.PATH or one.kind is not other.kind or one.glob == other.glob:
        return True
    if not (one.glob.endswith(_LEAVES) and other.glob.endswith(_LEAVES)):
        return True
    if _MAGIC & set(one.glob):
        return bool(_MAGIC & set(other.glob)) or match(one.glob, other.glob)
    return match(other.glob, one.glob)
