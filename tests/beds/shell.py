# SPDX-License-Identifier: Apache-2.0
"""Machines with cgnetd installed, for tests and by hand.

python -m beds.shell trixie [COMMAND...]    a shell, or one command, in a machine; it is gone afterwards
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from beds import cache, trees
from beds.errors import BedError
from beds.install import install, packages
from beds.machine import Machine
from beds.warden import fresh_directory


@contextmanager
def machine(distro: trees.Distro) -> Iterator[Machine]:
    """A booted machine with the checkout as it is now installed and not enabled. BedError."""
    python = trees.python(distro)
    system = trees.system(distro)
    log_dir = cache.directory() / "logs" / f"{distro.suite}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    directory = fresh_directory()
    try:
        layer = directory / "install"
        layer.mkdir()
        install(layer, python)
        with Machine([layer, python, *system], directory, log_dir) as booted:
            # By the machine's own Python; as a package would, or every start would compile all of it again.
            booted.run(f"{trees.VENV}/bin/python", "-m", "compileall", "-q", *map(str, packages(python)))
            yield booted
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="beds.shell", description=__doc__.partition("\n")[0])
    parser.add_argument("distro", choices=sorted(trees.DISTROS))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        with machine(trees.DISTROS[args.distro]) as made:
            return subprocess.call(made.command(*(args.command or ["/bin/bash", "--login"])))
    except BedError as error:
        print(f"beds: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
