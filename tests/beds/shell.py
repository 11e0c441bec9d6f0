# SPDX-License-Identifier: Apache-2.0
"""Machines with cgnetd installed, for tests and by hand.

    python -m beds.shell trixie [COMMAND...]    a shell, or one command, in a machine; it is gone afterwards
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beds import trees
from beds.errors import BedError
from beds.install import install
from beds.machine import Machine


@contextmanager
def machine(distro: trees.Distro, log_dir: Path) -> Iterator[Machine]:
    """A booted machine with the checkout as it is now installed and not enabled. BedError."""
    python = trees.python(distro)
    with tempfile.TemporaryDirectory(prefix="cgnetd-install-") as directory:
        layer = Path(directory)
        install(layer, python)
        with Machine([layer, python, *trees.system(distro)], log_dir) as booted:
            yield booted


def main() -> int:
    parser = argparse.ArgumentParser(prog="beds.shell", description=__doc__.partition("\n")[0])
    parser.add_argument("distro", choices=sorted(trees.DISTROS))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="cgnetd-logs-") as logs, machine(trees.DISTROS[args.distro], Path(logs)) as made:
            return subprocess.call(made.command(*(args.command or ["/bin/bash", "--login"])))
    except BedError as error:
        print(f"beds: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
