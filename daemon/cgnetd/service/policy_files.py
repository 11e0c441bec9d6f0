# SPDX-License-Identifier: Apache-2.0
"""Which policy files are in force, by systemd's drop-in rules, and what they hold.

A file name in an earlier directory masks the same name in later ones; a link to /dev/null or an empty file disables the
name. Files are taken in the order of their names across the directories. Must not know what a policy is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cgnetd.errors import Problem
from cgnetd.service.files import BeingWritten, FileContent, TooLarge, read_whole

# Of all policy files: a rule takes fifty times its text while it is read, and the daemon is deaf meanwhile.
LARGEST_TOTAL_BYTES = 16 * 1024 * 1024
SUFFIX = ".yaml"
Keep = Callable[[str], FileContent | None]
_MISTAKEN_SUFFIX = ".yml"
_TOO_LARGE = (
    f"is too large: accepted are {LARGEST_TOTAL_BYTES} bytes in all policy files together; long lists of addresses go "
    "into files of an AddressSet"
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The paths in force, in order; `problems` reject the whole set."""

    paths: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The files in force. `paths`: of all that were to be read. `writing`: those that cannot be read yet, for they are
    open for writing."""

    paths: tuple[str, ...]
    files: tuple[FileContent, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    writing: tuple[str, ...]


def list_policies(directories: Sequence[str]) -> Listing:
    """Find the policy files of `directories`, the first being the strongest; one that is not there holds none."""
    names: dict[str, tuple[str, bool]] = {}  # by name: the path, and whether it is a link
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                found = sorted((entry.name, entry.is_symlink()) for entry in entries)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(_whole(directory, f"directory cannot be read: {error.strerror}"))
            continue
        prefix = os.path.join(directory, "")
        for name, is_link in found:
            if name.startswith("."):
                continue
            if name.endswith(SUFFIX):
                names.setdefault(name, (prefix + name, is_link))
            elif name.endswith(_MISTAKEN_SUFFIX):
                warnings.append(_whole(prefix + name, f"ignored: policy files end in {SUFFIX}"))
    found_paths = (names[name] for name in sorted(names))
    paths = tuple(path for path, is_link in found_paths if not is_link or os.path.realpath(path) != os.devnull)
    return Listing(paths, tuple(problems), tuple(warnings))


def read_policies(listing: Listing, keep: Keep = lambda _: None) -> Reading:
    """Read what is listed. Never raises: what cannot be read is a problem."""
    reading = read_paths(listing.paths, keep)
    problems = tuple(sorted((*listing.problems, *reading.problems)))
    return Reading(reading.paths, reading.files, problems, listing.warnings, reading.writing)


def read_paths(paths: Sequence[str], keep: Keep = lambda _: None) -> Reading:
    """Read these files, in this order; empty ones are left out. `keep`: the content of a file that need not be read,
    None for one that must be. Never raises."""
    files: list[FileContent] = []
    problems: list[Problem] = []
    writing: list[str] = []
    left_bytes = LARGEST_TOTAL_BYTES
    for path in paths:
        try:
            content = keep(path) or read_whole(path, left_bytes)
            if len(content.data) > left_bytes:
                raise TooLarge
        except BeingWritten as error:
            writing.append(path)
            problems.append(_whole(path, str(error)))
        except TooLarge:
            problems.append(_whole(path, _TOO_LARGE))
        except OSError as error:
            problems.append(_whole(path, f"cannot be read: {error.strerror or error}"))
        else:
            # Told empty only now: a file that an editor has just truncated is one being written, not a disabled one.
            if content.data:
                files.append(content)
            left_bytes -= len(content.data)
    return Reading(tuple(paths), tuple(files), tuple(problems), (), tuple(writing))


def _whole(path: str, message: str) -> Problem:
    return Problem(path, 0, 0, "", message)
