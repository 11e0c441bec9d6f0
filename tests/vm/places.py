# SPDX-License-Identifier: Apache-2.0
"""Where a guest can run: in a virtual machine with another kernel, or on this host. Must not know what it tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from beds import follow, trees, vm

TOP = Path(__file__).parent.parent.parent
_CHECKOUT = ("tests", "daemon", "bpf", "config", "packaging", "pyproject.toml")


def in_machine(
    distro: trees.Distro, words: list[str], directory: Path, *, timeout_s: float, heard: Callable[[str], None]
) -> None:
    """Run the tests under the kernel of a distribution, with programs that its own compiler built. BedError."""
    vm.run(distro, pack(trees.programs(distro, TOP / "bpf"), directory, words), directory, timeout_s, heard)


def on_this_host(words: list[str], directory: Path, *, timeout_s: float, heard: Callable[[str], None]) -> None:
    """Run the tests under the kernel that runs. BedError."""
    console, lines = directory / "console.txt", directory / "lines.txt"
    lines.touch()
    asked = _write_words(directory, words)
    with console.open("wb") as said:
        guest = subprocess.Popen(
            [sys.executable, "-m", "vm.guest", os.fspath(lines), os.fspath(asked)],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": f"{TOP / 'daemon'}:{TOP / 'tests'}"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    follow.follow(guest, lines, console, deadline=time.monotonic() + timeout_s, heard=heard)


def pack(objects: Path, directory: Path, words: list[str]) -> Path:
    """The checkout as it is, its programs, and how to test it: a tar file for the second disk."""
    archive = directory / "checkout.tar"
    with tarfile.open(archive, "w") as tar:
        for name in _CHECKOUT:
            tar.add(TOP / name, f"checkout/{name}", filter=_source)
        for place in ("objects", "daemon/cgnetd/kernel/objects"):
            for built in sorted(objects.glob("*.bpf.o")):
                tar.add(built, f"checkout/{place}/{built.name}")
        tar.add(_write_words(directory, words), "checkout/words.json")
        tar.add(TOP / "tests/vm/init", "init")
    return archive


def _write_words(directory: Path, words: list[str]) -> Path:
    path = directory / "words.json"
    path.write_text(json.dumps(words), encoding="utf-8")
    return path


def _source(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nothing that was built in the checkout: it may be of other sources, or for another Python."""
    name = Path(entry.name).name
    return None if name == "__pycache__" or name.startswith(".") or name.endswith(".bpf.o") else entry
