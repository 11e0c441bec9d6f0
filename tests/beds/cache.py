# SPDX-License-Identifier: Apache-2.0
"""What is built once and kept outside the checkout: whole or not at all, by one builder at a time.

Must not know what it keeps. Names carry a key of what a thing is made from, so that nothing is ever changed in place.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from beds.commands import tell

VARIABLE = "CGNETD_BEDS"
DEFAULT = Path("/var/cache/cgnetd-beds")


def directory() -> Path:
    """Where everything is kept; CGNETD_BEDS in the environment overrides it."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def key(*parts: str | bytes) -> str:
    """Twelve hexadecimal digits that are the same for the same parts in the same order."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:12]


def kept(name: str, build: Callable[[Path], None]) -> Path:
    """The path of a thing, built first if it is absent. `build` makes a file or directory at the path it is given.

    What a killed builder left is thrown away by the next one. Raises what `build` raises.
    """
    path = directory() / name
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".{name}.lock"), name):
        if not path.exists():
            tell(f"building {name} (kept in {path.parent})")
            fresh = path.with_name(f".{name}.new")
            _remove(fresh)
            try:
                build(fresh)
                fresh.rename(path)
            finally:
                _remove(fresh)
    return path


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another builder of {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
