# SPDX-License-Identifier: Apache-2.0
"""A reconciler in a process of its own, whose own memory is there before it is told how little there is: what it
allocates from then on is the kernel's, for the maps that it makes.

Asked by words on standard input, a line each, answered by lines of JSON. Must not know what a test expects.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgnetd.service.reconcile import Reconciler
from cgnetd.service.session import OBJECT_DIR_VARIABLE, Surroundings
from cgnetd.service.settings import Settings

_TESTS_PATH = Path(__file__).parent.parent
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_OWN_BYTES = 128 << 20
_PATIENCE_S = 120.0
_SETTLED_S = 0.2  # files are old enough then to be believed


class Starved:
    """The process as a test sees it. Its pid is `pid`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def ask(self, word: str) -> dict[str, Any]:
        """`look`: one pass. `read`: files that changed, without a pass. `hoard`: memory for later. RuntimeError if the
        process died of it, or gave no answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise RuntimeError(f"{word}: no answer, exit code {self._process.poll()}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def starved(policy_dir: Path, pin_dir: Path, root: Path, object_dir: Path) -> Iterator[Starved]:
    """Started, with nothing in force; everything is flushed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.starved", str(policy_dir), str(pin_dir), str(root)],
        cwd=_TESTS_PATH,
        env={**os.environ, OBJECT_DIR_VARIABLE: str(object_dir), "PYTHONMALLOC": "malloc"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Starved(process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """By the end of its input; a process that has no memory to end is killed."""
    try:
        process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def main(policy_dir: str, pin_dir: str, root: str) -> None:
    libc = ctypes.CDLL(None)
    for option, value in ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1)):
        libc.mallopt(option, value)
    settings = Settings(policy_dirs=(policy_dir,), pin_dir=pin_dir, cgroup_root=root)
    reconciler = Reconciler(settings, Surroundings.find(settings))
    words: dict[str, Callable[[Reconciler], dict[str, Any]]]
    words = {"look": _look, "read": _read, "hoard": lambda _: _hoard(libc)}
    try:
        for line in sys.stdin:
            print(json.dumps(words[line.strip()](reconciler)), flush=True)
    finally:
        reconciler.flush()
        reconciler.close()


def _look(reconciler: Reconciler) -> dict[str, Any]:
    report = reconciler.look()
    while reconciler.unfinished and report.error is None:
        reconciler.look()
    running = reconciler.running
    return {
        "loaded": report.loaded,
        "error": str(report.error or ""),
        "repaired": list(report.repaired),
        "number": running.number if running else 0,
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def _read(reconciler: Reconciler) -> dict[str, Any]:
    time.sleep(_SETTLED_S)
    asked = reconciler.source.look(force=True)
    assert asked.image is not None
    return {
        "problems": [str(problem) for problem in asked.problems],
        "image": asked.image.sizes.bytes,
        "live": 8 * asked.image.sizes.live,
    }


def _hoard(libc: ctypes.CDLL) -> dict[str, Any]:
    """Have pages that the C library hands out again, so that none has to be asked for."""
    libc.malloc.restype = ctypes.c_void_p
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(_OWN_BYTES)))
    libc.memset(block, 1, ctypes.c_size_t(_OWN_BYTES))
    libc.free(block)
    return {}


if __name__ == "__main__":
    main(*sys.argv[1:])
