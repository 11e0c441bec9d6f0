# SPDX-License-Identifier: Apache-2.0
"""Commands that build beds: seen on a terminal, silent in a pipe unless they fail. Must not know what they build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from beds.errors import BedError, LackingError

PACKAGES = {
    "debootstrap": "debootstrap",
    "mkfs.ext4": "e2fsprogs",
    "nsenter": "util-linux",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def require(*programs: str) -> None:
    """LackingError naming everything that is missing for these programs to run as root."""
    if os.geteuid() != 0:
        raise LackingError("use test beds: they need root")
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        raise LackingError(f"use test beds: {', '.join(missing)} missing; install: apt-get install {packages}")


def tell(message: str) -> None:
    """A line for whoever waits at a terminal."""
    if sys.stderr.isatty():
        print(f"beds: {message}", file=sys.stderr, flush=True)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """BedError with the end of its output if it fails. Niced: building may take its time.

    It is asked to end when this process ends, and holds what this process lets others inherit (see cache.py).
    """
    seen = sys.stderr.isatty()
    done = subprocess.run(
        ["nice", "-n", "10", "setpriv", "--pdeathsig", "TERM", *command],
        env=None if environment is None else {**environment},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if seen else subprocess.PIPE,
        stderr=None if seen else subprocess.STDOUT,
        check=False,
        close_fds=False,
    )
    if done.returncode:
        words = "" if seen else ":\n" + done.stdout.decode(errors="replace")[-4000:]
        raise BedError(f"run {command[0]}: exit code {done.returncode}{words}")
