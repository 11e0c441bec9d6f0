# SPDX-License-Identifier: Apache-2.0
"""Runs the kernel tests of the checkout on another kernel, and prints what came out.

    python -m vm.run 6.1 [--timeout SECONDS] [--junit FILE] [PYTEST ARGUMENTS...]

Exit code 0: everything that was not a named skip passed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beds import cache, trees, vm
from beds.errors import BedError
from vm.junit import write_junit
from vm.outcome import Outcome

TOP = Path(__file__).parent.parent.parent
_CHECKOUT = ("tests", "daemon", "bpf", "config", "packaging", "pyproject.toml")
_TIMEOUT_S = 900.0


@dataclass(slots=True)
class Run:
    """What a machine has told so far."""

    kernel: str = ""
    capabilities: dict[str, bool] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    started: str = ""  # the test that runs
    exit_code: int | None = None

    def hear(self, line: str) -> None:
        """Ignores what is not of the protocol: a kernel may write to any line."""
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if "kernel" in told:
            self.kernel, self.capabilities = told["kernel"], told["capabilities"]
            print(f"Linux {self.kernel}; lacks {', '.join(self.lacking()) or 'nothing'}", flush=True)
        elif "start" in told:
            self.started = told["start"]
        elif "test" in told:
            self.outcomes.append(Outcome(**told))
            print(f"{told['outcome']:>8} {told['seconds']:7.2f} s  {told['test']}", flush=True)
        elif "exit" in told:
            self.exit_code = told["exit"]

    def lacking(self) -> list[str]:
        return [name for name, has in self.capabilities.items() if not has]

    def of(self, outcome: str) -> list[Outcome]:
        return [one for one in self.outcomes if one.outcome == outcome]

    @property
    def good(self) -> bool:
        return self.exit_code == 0 and not self.of("failed") and bool(self.of("passed"))


def pack(directory: Path, arguments: list[str]) -> Path:
    """The checkout as it is, its programs built, and how to test it: a tar file for the second disk."""
    objects = directory / "objects"
    subprocess.run(["make", "-s", "-C", os.fspath(TOP / "bpf"), f"OUT={objects}"], check=True)
    words = directory / "arguments.json"
    words.write_text(json.dumps(arguments), encoding="utf-8")
    archive = directory / "checkout.tar"
    with tarfile.open(archive, "w") as tar:
        for name in _CHECKOUT:
            tar.add(TOP / name, f"checkout/{name}", filter=_source)
        for place in ("objects", "daemon/cgnetd/kernel/objects"):
            for built in sorted(objects.glob("*.bpf.o")):
                tar.add(built, f"checkout/{place}/{built.name}")
        tar.add(words, "checkout/arguments.json")
        tar.add(TOP / "tests/vm/init", "init")
    return archive


def _source(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Nothing that was built in the checkout: it may be of other sources, or for another Python."""
    name = Path(entry.name).name
    return None if name == "__pycache__" or name.startswith(".") or name.endswith(".bpf.o") else entry


def main() -> int:
    parser = argparse.ArgumentParser(prog="vm.run", description=__doc__.partition("\n")[0])
    parser.add_argument("kernel", choices=sorted(distro.kernel for distro in trees.DISTROS.values()))
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("--junit", type=Path, metavar="FILE")
    args, words = parser.parse_known_args()
    distro = next(one for one in trees.DISTROS.values() if one.kernel == args.kernel)
    logs = cache.directory() / "logs" / f"linux-{args.kernel}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    logs.mkdir(parents=True)
    run = Run()
    problem = ""
    try:
        vm.run(distro, pack(logs, words), logs, timeout_s=args.timeout, heard=run.hear)
    except BedError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    return _conclude(run, problem, logs, args.junit)


def _conclude(run: Run, problem: str, logs: Path, junit: Path | None) -> int:
    for one in run.of("failed"):
        print(f"\n---- {one.test}\n{one.text}")
    if junit is not None:
        write_junit(junit, f"linux-{run.kernel}", run.outcomes)
    if run.exit_code is None:
        problem = f"{problem or 'the machine ended before its tests did'}; last test: {run.started or 'none'}"
    counts = ", ".join(f"{len(run.of(name))} {name}" for name in ("passed", "failed", "skipped"))
    print(f"\nLinux {run.kernel or '?'}: {counts}" + (f"; {problem}" if problem else ""))
    for one in run.of("failed"):
        print(f"  failed: {one.test}")
    if run.good and not problem:
        shutil.rmtree(logs)
        return 0
    print(f"logs: {logs}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
