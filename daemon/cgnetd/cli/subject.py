# SPDX-License-Identifier: Apache-2.0
"""The word SUBJECT of a command line -> the path of a cgroup below the managed root.

Reads the cgroup tree and /proc, nothing else. Must not know of policies or the daemon.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from cgnetd.errors import UsageError
from cgnetd.kernel.cgroup import CgroupRoot

UNIT_SUFFIXES = (".service", ".scope", ".socket", ".slice", ".mount", ".swap")
_INSTANCE = re.compile(r"([^@]+)@[^@]*\.(?:service|socket|mount|swap|scope)")


@dataclass(frozen=True, slots=True)
class Subject:
    """A cgroup by its path below the root ("/" is the root itself), and how it was found where that is not obvious."""

    path: str
    notes: tuple[str, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(part for part in self.path.split("/") if part)


def resolve(word: str, root: str | None) -> Subject:
    """A unit name, "/cgroup/path" or "pid:N" -> its cgroup below `root`, a directory (None: there is none to look at).

    A path is taken as it is, whether it exists or not. A unit that is not there is assumed where systemd would put it.
    Raises UsageError, KernelError for a root that is no cgroup.
    """
    if word.startswith("pid:"):
        return _of_pid(word.removeprefix("pid:"), root)
    if word.startswith("/"):
        parts = [part for part in word.split("/") if part]
        if "." in parts or ".." in parts:
            raise UsageError(f"read subject {word!r}: a cgroup path has no '.' or '..' in it")
        return Subject("/" + "/".join(parts))
    if not word or "/" in word:
        raise UsageError(
            f"read subject {word!r}: write a unit name, an absolute cgroup path such as /system.slice, or pid:N"
        )
    return _of_unit(word if word.endswith(UNIT_SUFFIXES) else f"{word}.service", root)


def _of_pid(text: str, root: str | None) -> Subject:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"read subject 'pid:{text}': not a process id")
    if root is None:
        raise UsageError(
            f"find the cgroup of process {text}: no cgroup v2 tree is mounted; name one with --cgroup-root"
        )
    with CgroupRoot(root) as tree:
        path = tree.pid_path(int(text))
    if path is None:
        raise UsageError(f"find the cgroup of process {text}: there is no such process in a cgroup below {root}")
    path = "/" + path.strip("/")
    return Subject(path, (f"process {text} is in {path}",))


def _of_unit(name: str, root: str | None) -> Subject:
    found = _find(name, root) if root else []
    if len(found) == 1:
        return Subject(found[0], (f"{name} is {found[0]}",))
    if found:
        raise UsageError(f"find unit {name}: there are several, name one by its path: {', '.join(found)}")
    path = assumed_path(name, os.getuid())
    return Subject(path, (f"{name} has no cgroup now: taken as {path}",))


def _find(name: str, root: str) -> list[str]:
    with CgroupRoot(root) as tree:
        return sorted(cgroup.path for cgroup in tree.walk() if cgroup.name == name)


def assumed_path(name: str, uid: int) -> str:
    """Where systemd would put unit `name` by its defaults; `uid` is whose, for units that only user managers start."""
    if name.endswith(".slice"):
        return _slice_path(name)
    if name.startswith(("app-", "dbus-:")):
        return f"/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/{name}"
    if re.fullmatch(r"session-[^/]+\.scope", name):
        return f"/user.slice/user-{uid}.slice/{name}"
    if match := re.fullmatch(r"user(?:-runtime-dir)?@(\d+)\.service", name):
        return f"/user.slice/user-{match[1]}.slice/{name}"
    if match := _INSTANCE.fullmatch(name):
        template = match[1].replace("-", "\\x2d")  # a dash would make it a slice below another one
        return f"/system.slice/system-{template}.slice/{name}"
    return f"/system.slice/{name}"


def _slice_path(name: str) -> str:
    """`a-b.slice` is below `a.slice`; `-.slice` is the root."""
    if name == "-.slice":
        return "/"
    parts = name.removesuffix(".slice").split("-")
    return "/" + "/".join("-".join(parts[: depth + 1]) + ".slice" for depth in range(len(parts)))
