# SPDX-License-Identifier: Apache-2.0
"""What the numbers hold for: the machine, and what else goes on there. Must not measure calls."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.calls import foreign_programs

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_COUNTERS = Path("/sys/bus/event_source/devices/cpu")


def describe() -> dict[str, Any]:
    """Before anything is measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    memory = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.M)
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _field(cpuinfo, "model name"),
        "mhz": _field(cpuinfo, "cpu MHz"),
        "caches": _caches(),
        "memory_mib": int(memory.group(1)) // 1024 if memory else 0,
        "virtual": "hypervisor" in _field(cpuinfo, "flags").split(),
        "counts_instructions": _COUNTERS.exists(),
        "python": platform.python_version(),
        "clang": _version(os.environ.get("CLANG", "clang")),
        "nft": _version("nft"),
        "load_before": os.getloadavg()[0],
        "foreign_programs": foreign_programs(),
    }


def _field(cpuinfo: str, name: str) -> str:
    """Of the first CPU."""
    found = re.search(rf"^{name}\s*: (.*)$", cpuinfo, re.M)
    return found.group(1) if found else "unknown"


def _caches() -> dict[str, str]:
    """Size by level, of the first CPU; instructions' left out."""
    found = {}
    for index in sorted(_CACHES.glob("index*")):
        level, kind, size = ((index / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def _version(program: str) -> str:
    """The first line of what it says of itself."""
    if not shutil.which(program):
        return "not installed"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0].strip()
