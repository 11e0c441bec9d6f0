# SPDX-License-Identifier: Apache-2.0
"""Policies read from files by this process, for the verbs that need no daemon and no privilege.

Must not know of the kernel or the control socket.
"""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cgnetd.errors import Problem, UsageError
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import PolicySet
from cgnetd.service.files import read_whole
from cgnetd.service.policy_files import list_policies, read_paths, read_policies
from cgnetd.service.unit_files import alias_doubts


@dataclass(frozen=True, slots=True)
class Loaded:
    """What files mean. `policy_set` is None if and only if there are problems."""

    policy_set: PolicySet | None
    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(places: Sequence[str]) -> Loaded:
    """Read files and directories as one policy set: directories by the drop-in rules, then the files.

    Never raises for what is in them. Raises UsageError for a place that does not exist.
    """
    for place in places:
        if not Path(place).exists():
            raise UsageError(f"read {place}: no such file or directory")
    return load_directories([p for p in places if Path(p).is_dir()], [p for p in places if not Path(p).is_dir()])


def load_directories(directories: Sequence[str], files: Sequence[str] = ()) -> Loaded:
    """Like `load`, but a directory that does not exist holds nothing, as the daemon takes it."""
    reading, more = read_policies(list_policies(directories)), read_paths(files)
    contents = (*reading.files, *more.files)
    result = parse(
        [Source(content.path, content.data) for content in contents],
        read_set=lambda path: read_whole(path).data,
        find_user=lambda name: pwd.getpwnam(name).pw_uid,
    )
    problems = tuple(sorted((*reading.problems, *more.problems, *result.problems)))
    doubts = alias_doubts(result.policy_set) if result.policy_set else ()
    return Loaded(
        None if problems else result.policy_set,
        tuple(content.path for content in contents),
        problems,
        tuple(sorted((*reading.warnings, *result.warnings, *doubts))),
    )
