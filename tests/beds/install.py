# SPDX-License-Identifier: Apache-2.0
"""The checkout, installed where its unit and its documents expect it, as a layer on top of a Debian tree.

Must not know how a tree is made or booted.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from beds.errors import BedError
from beds.trees import VENV

TOP = Path(__file__).parent.parent.parent
_COMMAND = """\
#!{venv}/bin/python -I
import sys

from cgnetd.cli.{module} import main

sys.exit(main())
"""
_MODULES = {"cgnetd": "daemon", "cgnetctl": "ctl"}
_FILES = {
    "packaging/tmpfiles.d/cgnetd.conf": "usr/lib/tmpfiles.d/cgnetd.conf",
    "packaging/catalog/cgnetd.catalog": "usr/lib/systemd/catalog/cgnetd.catalog",
    "packaging/sysusers.d/cgnetd.conf": "usr/lib/sysusers.d/cgnetd.conf",
    "config/cgnetd.yaml": "etc/cgnetd/cgnetd.yaml",
}
_NEWER_FILES = {
    "packaging/systemd/notify-reload.conf": "usr/lib/systemd/system/cgnetd.service.d/notify-reload.conf",
}


_NOTIFY_RELOAD = 253  # the first systemd that knows it


def install(layer: Path, python: Path, systemd: int) -> None:
    """Fill an empty directory with what an installed cgnetd adds to a tree; `python`: the layer that has VENV;
    `systemd`: the version of the tree's.

    BedError if the programs of the kernel side are not built.
    """
    if not any((TOP / "daemon/cgnetd/kernel/objects").glob("*.bpf.o")):
        raise BedError("install the checkout: its programs are not built; build them: make bpf")
    for package in packages(python):
        target = layer / package.relative_to("/")
        shutil.copytree(TOP / "daemon" / package.name, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name, module in _MODULES.items():
        _write(layer / "usr/bin" / name, _COMMAND.format(venv=VENV, module=module), 0o755)
    units = {f"packaging/systemd/{name}": f"usr/lib/systemd/system/{name}" for name in _units()}
    files = units | (_FILES if systemd < _NOTIFY_RELOAD else _FILES | _NEWER_FILES)
    for source, installed in files.items():
        _write(layer / installed, (TOP / source).read_text(encoding="utf-8"), 0o644)


def _units() -> list[str]:
    return [path.name for path in (TOP / "packaging/systemd").iterdir() if path.suffix in (".service", ".socket")]


def packages(python: Path) -> tuple[Path, ...]:
    """Where cgnetd's packages are in a tree that it is installed in."""
    found = sorted((python / VENV.lstrip("/") / "lib").glob("python3*/site-packages"))
    if len(found) != 1:
        raise BedError(f"install the checkout: no virtual environment in {python}; remove it")
    return tuple("/" / found[0].relative_to(python) / name for name in ("cgnetd", "pybpf"))


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.chmod(path, mode)
