# SPDX-License-Identifier: Apache-2.0
"""Runs the kernel tests of the checkout on another kernel, and prints what came out.

    python -m vm.run 6.1 [--timeout SECONDS] [--junit FILE] [--record FILE] [PYTEST ARGUMENTS...]

`host` instead of a version: on the kernel that runs. Without pytest's arguments: the whole selection. Exit code 0:
everything that was not a named skip passed; if it was the whole selection, its record is kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from beds import cache, trees
from beds.errors import BedError
from vm import places, record
from vm.heard import Run
from vm.junit import write_junit
from vm.record import Record

HOST = "host"
_TIMEOUT_S = 2600.0


def main() -> int:
    kernels = {distro.kernel: distro for distro in trees.DISTROS.values()}
    parser = argparse.ArgumentParser(prog="vm.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kernel", choices=[*kernels, HOST])
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("--junit", type=Path, metavar="FILE")
    parser.add_argument("--record", type=Path, metavar="FILE", help="what came out, whatever that is")
    args, words = parser.parse_known_args()
    run = Run()
    logs = cache.fresh_logs(f"linux-{args.kernel}")
    began_at = time.monotonic()
    problem = ""
    try:
        if args.kernel == HOST:
            places.on_this_host(words, logs, timeout_s=args.timeout, heard=run.hear)
        else:
            places.in_machine(kernels[args.kernel], words, logs, timeout_s=args.timeout, heard=run.hear)
    except BedError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    good = _tell(run, problem, time.monotonic() - began_at)
    kept = [record.kept_path(args.kernel)] if good and not words else []
    found = Record(args.kernel, run.kernel, run.build, run.capabilities, run.outcomes)
    for path in (*kept, *([args.record] if args.record else [])):
        record.write(path, found)
    if args.junit:
        write_junit(args.junit, f"linux-{run.kernel}", run.outcomes)
    if good:
        shutil.rmtree(logs)
        return 0
    print(f"logs: {logs}")
    return 1


def _tell(run: Run, problem: str, took_s: float) -> bool:
    """Whether all was good."""
    for one in run.of("failed"):
        print(f"\n---- {one.test}\n{one.text}")
    if run.exit_code is None:
        problem = f"{problem or 'it ended before its tests did'}; last test: {run.started or 'none'}"
    elif not run.good and not run.of("failed"):
        problem = problem or f"no test passed, or pytest failed: exit code {run.exit_code}"
    counts = ", ".join(f"{len(run.of(name))} {name}" for name in ("passed", "failed", "skipped"))
    print(f"\nLinux {run.kernel or '?'}: {counts} in {took_s:.0f} s" + (f"; {problem}" if problem else ""))
    for one in run.of("failed"):
        print(f"  failed: {one.test}")
    return run.good and not problem


if __name__ == "__main__":
    sys.exit(main())
