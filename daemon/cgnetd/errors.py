# SPDX-License-Identifier: Apache-2.0
"""The error tree of cgnetd. Everything a person can mend is one of these; messages read "verb object: cause".

Must not import `dataclasses`, which takes a quarter of the time in which `cgnetctl reload` starts.

CgnetdError                 exit 1
  PolicyError               exit 78, carries every Problem of every file
  SettingsError             exit 78
  UsageError                exit 2
  NotRunningError           exit 3
  PrivilegeError            exit 4
  KernelError               exit 1, something the kernel refused (cgroup root, bpffs, BTF, load, attach)
    PinError                exit 1, pins that are foreign, of another ABI, or held by another daemon
"""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong (or doubtful) in one place of one file. Lines and columns count from 1; 0 is "the whole file"."""

    file: str
    line: int
    column: int
    key: str  # dotted key path, e.g. "spec.egress[2].ports[0]"
    message: str  # what is wrong, and what is accepted

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.message}"


class CgnetdError(Exception):
    """Anything that ends a command with a message and no traceback."""

    exit_code = 1


class PolicyError(CgnetdError):
    """A policy set that was rejected as a whole; `problems` holds every error of every file, sorted."""

    exit_code = 78

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(p) for p in self.problems))


class SettingsError(CgnetdError):
    """Settings that cannot be read or used."""

    exit_code = 78


class UsageError(CgnetdError):
    """A command line that cannot be understood."""

    exit_code = 2


class NotRunningError(CgnetdError):
    """Nobody answers on the control socket."""

    exit_code = 3


class PrivilegeError(CgnetdError):
    """The caller lacks a capability or is not let in."""

    exit_code = 4


class KernelError(CgnetdError):
    """The kernel lacks or refused something."""


class PinError(KernelError):
    """The pin directory holds something that is not ours to use."""
