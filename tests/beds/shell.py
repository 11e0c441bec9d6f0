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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from beds import cache, trees
from beds.errors import BedError
from beds.install import install, packages
from beds.machine import Machine
from beds.warden import fresh_directory


@contextmanager
def machine(
    distro: trees.Distro,
    deb: Path | None = None,
    prepare: Callable[[Path], None] | None = None,
    *,
    bare: Path | None = None,
) -> Iterator[Machine]:
    """A booted machine with a package installed, or with the checkout as it is now (then not enabled). BedError.

    `prepare` may put files below the directory it is given, which becomes the machine's root, before it boots.
    `bare`: a layer of trees, instead of cgnetd.
    """
    log_dir = cache.directory() / "logs" / f"{distro.suite}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    directory = fresh_directory()
    try:
        layer = directory / "layer"
        layer.mkdir(mode=0o755)
        installed = bare or (trees.python(distro) if deb is None else trees.package(distro, deb))
        from_checkout = bare is None and deb is None
        if from_checkout:
            install(layer, installed, distro.systemd)
        if prepare is not None:
            prepare(layer)
        with Machine([layer, installed, *trees.system(distro)], directory, log_dir) as booted:
            if from_checkout:
                # By the machine's own Python; as a package would, or every start would compile all of it again.
                booted.run(f"{trees.VENV}/bin/python", "-m", "compileall", "-q", *map(str, packages(installed)))
                booted.run("journalctl", "--update-catalog")
            yield booted
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def newest_deb(directory: Path, distro: trees.Distro) -> Path:
    """Of the packages that were built for a distribution. BedError if there is none."""
    found = sorted(directory.glob(f"cgnetd_*+deb{distro.version}_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BedError(f"install a package: none for Debian {distro.version} in {directory}; build it: make deb")
    return found[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="beds.shell", description=__doc__.partition("\n")[0])
    parser.add_argument("--deb", type=Path, metavar="DIRECTORY", help="install the newest package in there")
    parser.add_argument("distro", choices=sorted(trees.DISTROS))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        distro = trees.DISTROS[args.distro]
        with machine(distro, args.deb and newest_deb(args.deb, distro)) as made:
            return subprocess.call(made.command(*(args.command or ["/bin/bash", "--login"])))
    except BedError as error:
        print(f"beds: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
