# SPDX-License-Identifier: Apache-2.0
"""Private cgroups and bpffs mounts, made for one test and taken away with everything in them, whatever happened.

Names carry the pid of the test process, so that the next run recognises and removes what a killed one left.
Must not know what is tested in them.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pickle
import re
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgnetd.errors import KernelError
from cgnetd.kernel.cgroup import find_root

PREFIX = "cgntest"
RUN = Path("/run")
_NAME = re.compile(rf"{PREFIX}-(\d+)-")
_DEADLINE_S = 60.0
_MNT_DETACH = 2
_numbers = itertools.count()


def fresh_name() -> str:
    """Without dots, so that it serves on a bpffs too."""
    return f"{PREFIX}-{os.getpid()}-{next(_numbers)}"


class PrivateCgroup:
    """A cgroup of a test: children, and processes put into it before they do anything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> int:
        return self.path.stat().st_ino

    def child(self, name: str) -> PrivateCgroup:
        """`name` may be nested; what is missing is made."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return PrivateCgroup(path)

    def enter(self) -> None:
        """Move the calling process in. For children of the test process only."""
        (self.path / "cgroup.procs").write_text("0")

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of `function`, called in a child process inside the cgroup; what it raises is raised here.

        Result and exception must be picklable.
        """
        readable, writable = os.pipe()
        child = os.fork()
        if not child:
            os.close(readable)
            _answer(writable, self.enter, function)
        os.close(writable)
        with os.fdopen(readable, "rb") as answers:
            raw = answers.read()
        os.waitpid(child, 0)
        good, value = pickle.loads(raw) if raw else (False, RuntimeError("the child died"))
        if not good:
            raise value
        return value

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """A command that runs inside from its first instruction on."""
        procs = self.path / "cgroup.procs"
        script = 'echo $$ > "$0" && exec "$@"'
        return subprocess.Popen(["/bin/sh", "-c", script, os.fspath(procs), *argv], **options)


def _answer(writable: int, enter: Callable[[], None], function: Callable[[], Any]) -> None:
    """In the child: never returns into the test."""
    try:
        enter()
        answer = pickle.dumps((True, function()))
    except BaseException as error:
        error.add_note(traceback.format_exc())
        answer = pickle.dumps((False, error))
    try:
        with os.fdopen(writable, "wb") as answers:
            answers.write(answer)
    finally:
        os._exit(0)


@contextmanager
def cgroup() -> Iterator[PrivateCgroup]:
    path = find_root() / fresh_name()
    path.mkdir()
    try:
        yield PrivateCgroup(path)
    finally:
        remove_cgroup(path)


@contextmanager
def bpffs_mount(flags: int = 0) -> Iterator[Path]:
    """An empty bpffs of its own."""
    point = RUN / fresh_name()
    point.mkdir(mode=0o700)
    try:
        mount("bpf", point, "bpf", flags)
        yield point
    finally:
        remove_mount(point)


def mount(source: str, point: Path, kind: str, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), os.fsencode(point), kind.encode(), ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind}: {os.strerror(number)}", os.fspath(point))


def remove_mount(point: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    while point.is_mount():
        if libc.umount2(os.fsencode(point), _MNT_DETACH):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(point))
    point.rmdir()


def remove_cgroup(path: Path) -> None:
    """Kill whatever is in it or below, then remove it."""
    deadline = time.monotonic() + _DEADLINE_S
    while path.exists():
        _kill_below(path)
        for directory, _, _ in os.walk(path, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)  # a killed process leaves its cgroup when it is gone, not when it is killed
                break


def _kill_below(path: Path) -> None:
    if (path / "cgroup.kill").exists():
        (path / "cgroup.kill").write_text("1")
        return
    for directory, _, _ in os.walk(path):
        for pid in (Path(directory) / "cgroup.procs").read_text().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


def leftovers() -> tuple[Path, ...]:
    """Cgroups and mount points of any test process, living or dead."""
    try:
        places = (find_root(), RUN)
    except KernelError:
        places = (RUN, RUN)
    return tuple(path for place in dict.fromkeys(places) for path in sorted(place.iterdir()) if _NAME.match(path.name))


def owner(path: Path) -> int:
    """Pid of the test process that made it."""
    found = _NAME.match(path.name)
    assert found
    return int(found.group(1))


def remove_stale() -> None:
    """Take away what killed test processes left."""
    for path in leftovers():
        if not Path(f"/proc/{owner(path)}").exists():
            remove(path)


def remove(path: Path) -> None:
    if path.parent == RUN:
        remove_mount(path)
    else:
        remove_cgroup(path)
