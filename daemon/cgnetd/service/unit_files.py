# SPDX-License-Identifier: Apache-2.0
"""Other names of systemd units, by the links among unit files: what a policy says of such a name is said of nothing.

Must not ask systemd: policies are read where there is none, and before it can answer.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

from cgnetd.errors import Problem
from cgnetd.policy.types import PatternKind, Policy, PolicySet

# What comes first hides the same name in what follows, as systemd has it.
DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def alias_doubts(policy_set: PolicySet, directories: Sequence[str] = DIRECTORIES) -> tuple[Problem, ...]:
    """A warning for each system unit that a subject calls by a name that is not its own. Sorted; never raises.

    A unit has one cgroup, with the unit's own name. Globs are left alone: they may well match that one too.
    """
    aliases = _aliases(directories)
    named = (policy for policy in policy_set.policies if _may_alias(policy, aliases))
    return tuple(sorted({doubt for policy in named for doubt in _about(policy, aliases)}))


def _may_alias(policy: Policy, aliases: Collection[str]) -> bool:
    """What hardly any policy does, told quickly: names with an `@` can be of a template that is an alias."""
    subject = policy.subject
    return any(
        pattern.kind is PatternKind.UNIT and (pattern.glob in aliases or "@" in pattern.glob)
        for pattern in (subject.match + subject.exclude if subject.exclude else subject.match)
    )


def _about(policy: Policy, aliases: dict[str, str]) -> Iterator[Problem]:
    for pattern in (*policy.subject.match, *policy.subject.exclude):
        real = _real_name(pattern.glob, aliases) if pattern.kind is PatternKind.UNIT else pattern.glob
        if real != pattern.glob:
            text = f'"{pattern.glob}" is another name of {real} and the name of no cgroup: write {real}'
            yield Problem(policy.where.file, policy.where.line, policy.where.column, "spec.subject", text)


def _real_name(name: str, aliases: dict[str, str]) -> str:
    """The name that systemd gives the unit's cgroup: `name` itself if that is no alias."""
    real = name
    for _ in aliases:  # as often as links can follow each other
        prefix, at, rest = real.partition("@")
        instance, _, suffix = rest.rpartition(".")
        template = f"{prefix}@.{suffix}" if at else real
        found = aliases.get(real) or aliases.get(template)
        if found is None:
            break
        target, at, ending = found.partition("@")
        real = f"{target}@{instance}{ending}" if at and ending.startswith(".") else found
    return real


def _aliases(directories: Sequence[str]) -> dict[str, str]:
    """Names that are links to another unit file beside them, or in another one of these directories."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                names = [(entry.name, entry.is_symlink()) for entry in entries]
        except OSError:
            continue
        for name, is_link in names:
            if name not in seen and is_link:
                target = _target(directory, name, directories)
                if target != name:
                    found[name] = target
            seen.add(name)
    return found


def _target(directory: str, name: str, directories: Sequence[str]) -> str:
    """What the unit file is a link to; `name` for what is masked, elsewhere, or a template of the same name."""
    try:
        path = os.path.normpath(os.path.join(directory, os.readlink(os.path.join(directory, name))))
    except OSError:
        return name
    target_directory, target = os.path.split(path)
    is_own_template = "@." in target and name.partition("@")[0] == target.partition("@")[0]
    return name if target_directory not in directories or is_own_template else target
