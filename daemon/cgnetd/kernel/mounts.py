# SPDX-License-Identifier: Apache-2.0
"""Where cgroup v2 and bpffs are mounted, from /proc/self/mountinfo. Must not look into them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    point: Path
    root: str  # the directory of the file system that is mounted; of a hierarchy, as this cgroup namespace names it


def parse_mountinfo(text: str, kind: str = "cgroup2") -> tuple[Mount, ...]:
    """Mounts of a file system type, in order of mounting. Format: proc_pid_mountinfo(5)."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        separator = fields.index("-", 6)
        if fields[separator + 1] == kind:
            mounts.append(Mount(Path(_unescape(fields[4])), _unescape(fields[3])))
    return tuple(mounts)


def cgroup2_mounts() -> tuple[Mount, ...]:
    return parse_mountinfo(_mountinfo())


def bpffs_mounts() -> tuple[Mount, ...]:
    return parse_mountinfo(_mountinfo(), "bpf")


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)
