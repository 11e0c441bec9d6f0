# SPDX-License-Identifier: Apache-2.0
"""What is built once and kept outside the checkout: whole or not at all, by one builder at a time.

Must not know what it keeps. Names carry a key of what a thing is made from, so that nothing is ever changed in place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from beds.commands import tell

VARIABLE = "CGNETD_BEDS"
DEFAULT = Path("/var/cache/cgnetd-beds")


def directory() -> Path:
    """Where everything is kept; CGNETD_BEDS in the environment overrides it."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def fresh_logs(name: str) -> Path:
    """A new directory for what is kept of a run that fails."""
    path = directory() / "logs" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    path.mkdir(parents=True)
    return path


def key(*parts: str | bytes) -> str:
    """Twelve hexadecimal digits that are the same for the same parts in the same order."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:12]


def kept(name: str, build: Callable[[Path], None]) -> Path:
    """The path of a thing, built first if it is absent. Raises what `build` raises.

    `build` makes a file or directory at the path it is given, and may use other paths that begin with that one. What a
    killed builder left is thrown away by the next one, once the processes that it started have ended.
    """
    path = directory() / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".{name}.lock"), name):
        if not path.exists():
            tell(f"building {name} (kept in {path.parent})")
            _clear(path)
            try:
                fresh = path.with_name(f".{name}.new")
                build(fresh)
                fresh.rename(path)
            finally:
                _clear(path)
    return path


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        os.set_inheritable(lock.fileno(), True)  # what the builder starts holds the lock too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another builder of {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear(path: Path) -> None:
    """Remove what is unfinished of a thing."""
    for left in path.parent.glob(f".{path.name}.new*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
