# SPDX-License-Identifier: Apache-2.0
"""Which systemd unit a cgroup path belongs to, by its names alone.

Must not ask systemd: the daemon runs where there is none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
_SLICE = re.compile(r".+\.slice")
_USER_SERVICE = re.compile(r"user@[0-9]+\.service")


class Units(NamedTuple):
    """Names of units, "" where there is none. Below a user manager `unit` is the manager's own."""

    unit: str
    user_unit: str


def units_of(path: str) -> Units:
    """The innermost unit of a cgroup path; a slice only where there is nothing else."""
    names = path.split("/")
    for index, name in enumerate(names):
        if _USER_SERVICE.fullmatch(name):
            return Units(name, _innermost(names[index + 1 :]))
    return Units(_innermost(names), "")


def _innermost(names: list[str]) -> str:
    for pattern in (_UNIT, _SLICE):
        for name in reversed(names):
            if pattern.fullmatch(name):
                return name
    return ""
