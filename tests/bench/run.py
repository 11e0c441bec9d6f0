# SPDX-License-Identifier: Apache-2.0
"""Prints what enforcement costs, as a table or with --json. Needs root; takes about four minutes.

The cost of calls is measured against a baseline in the same run, in turns, because machines drift.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS_PATH = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS_PATH))

from bench import calls, daemon, programs, redirect, tables, verdicts  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument("--rounds", type=int, default=15, help="turns of the interleaved measurements")
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS", help="how long to watch the idle daemon")
    parser.add_argument(
        "--only", choices=("calls", "redirect", "programs", "verdicts", "reload", "idle"), help="one part only"
    )
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 4
    with tempfile.TemporaryDirectory(prefix="cgnetd-bench-") as directory:
        scratch = Path(directory)
        objects = build_objects(scratch)
        found: dict[str, object] = {"machine": machine()}
        if args.only in (None, "calls"):
            found["calls"] = calls.measure(scratch, objects, args.rounds)
        if args.only in (None, "redirect"):
            found["redirect"] = redirect.measure(scratch, objects, args.rounds)
        if args.only in (None, "programs"):
            found["programs"] = programs.measure(scratch, objects, args.rounds)
        if args.only in (None, "verdicts"):
            found["verdicts"] = verdicts.measure(objects)
        if args.only in (None, "reload"):
            found["reload"] = daemon.measure_reload(scratch, objects)
        if args.only in (None, "idle"):
            found["idle"] = daemon.measure_idle(scratch, objects, args.idle)
    print(json.dumps(found, indent=2) if args.json else tables.text(found))
    return 0


def machine() -> dict[str, object]:
    """What the numbers hold for."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else "unknown",
        "python": platform.python_version(),
    }


def build_objects(scratch: Path) -> Path:
    """The programs of the tree as it is."""
    out = scratch / "objects"
    subprocess.run(["make", "-s", "-C", TESTS_PATH.parent / "bpf", f"OUT={out}"], check=True)
    return out


if __name__ == "__main__":
    sys.exit(main())
