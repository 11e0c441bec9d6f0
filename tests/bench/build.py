# SPDX-License-Identifier: Apache-2.0
"""What the benchmark builds: the programs of the tree as it is, and its own. Must not load or measure them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TOP_PATH = Path(__file__).resolve().parents[2]
SOURCES_PATH = Path(__file__).resolve().parent / "bpf"


def objects(scratch: Path) -> Path:
    """The directory that bpf/ was built into. Raises subprocess.CalledProcessError."""
    out = scratch / "objects"
    if not out.exists():
        subprocess.run(["make", "-s", "-C", TOP_PATH / "bpf", f"OUT={out}"], check=True)
    return out


def own(name: str, scratch: Path) -> Path:
    """The object file of bpf/NAME.bpf.c beside this file. Raises subprocess.CalledProcessError."""
    out = scratch / f"{name}.bpf.o"
    bpf = TOP_PATH / "bpf"
    machine = f"/usr/include/{os.uname().machine}-linux-gnu"
    options = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
    include = [f"-I{bpf}", f"-I{bpf / 'include'}", "-idirafter", machine, "-Wno-unused-parameter"]
    clang = os.environ.get("CLANG", "clang")
    subprocess.run([clang, *options, *include, "-c", SOURCES_PATH / f"{name}.bpf.c", "-o", out], check=True)
    return out
