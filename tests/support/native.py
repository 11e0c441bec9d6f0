# SPDX-License-Identifier: Apache-2.0
"""The C programs beside this file, compiled when a test asks for one. Must not know what they measure or prove."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES_PATH = Path(__file__).parent / "native"


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("clang")


def build(name: str, into: Path, *flags: str) -> Path:
    """Compile NAME.c into `into`, by more `flags` if it needs them, and return the program's path.

    Raises subprocess.CalledProcessError.
    """
    program = into / name
    command = [compiler() or "cc", "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-o", str(program)]
    subprocess.run([*command, str(SOURCES_PATH / f"{name}.c")], check=True)
    return program
