# SPDX-License-Identifier: Apache-2.0
"""The process that holds one machine: makes its cgroup, starts it, and takes everything away when its starter is gone.

    python -m beds.warden DIRECTORY LOWER CONSOLE

DIRECTORY is from `fresh_directory` and becomes the warden's; for the others see boot.sh. It tells the pid of the
machine's first process and the path of its cgroup on stdout, in one line of JSON, and lives as long as its stdin is
open and the machine runs. Killed itself, the machine dies with it; the empty cgroup and the directory that are left are
removed by the next warden. Must not know what runs in the machine.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from beds import commands
from cgnetd.kernel.cgroup import find_root
from support.sandbox import remove_cgroup

_PREFIX = "cgnetd-bed"
_NAME = re.compile(rf"{_PREFIX}-(\d+)(-|$)")  # with the pid of who made it
_HERE = Path(__file__).parent
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--cgroup", "--pid")
# The shell enters the cgroup first: it becomes the root of the new cgroup namespace.
_ENTER = 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"'
_PATIENCE_S = 60.0


def main() -> int:
    directory, lower, console = sys.argv[1:]
    sweep()
    cgroup = find_root() / f"{_PREFIX}-{os.getpid()}"
    cgroup.mkdir()
    try:
        point = Path(directory, "root")
        point.mkdir()
        machine = _start(cgroup, ["/bin/sh", os.fspath(_HERE / "boot.sh"), os.fspath(point), lower, console])
        try:
            print(json.dumps({"pid": _only_child(machine), "cgroup": os.fspath(cgroup)}), flush=True)
            return _attend(machine)
        finally:
            machine.kill()
            machine.wait()
    finally:
        remove_cgroup(cgroup)
        shutil.rmtree(directory, ignore_errors=True)


def fresh_directory() -> Path:
    """For what only one machine needs. Whoever makes it removes it, or hands it to a warden."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-"))


def sweep() -> None:
    """Remove what is left of wardens and starters that are gone."""
    for path in (*find_root().iterdir(), *Path(tempfile.gettempdir()).iterdir()):
        found = _NAME.match(path.name)
        if not found or Path(f"/proc/{found.group(1)}").exists():
            continue
        if path.is_relative_to(find_root()):
            with suppress(FileNotFoundError):  # another warden sweeps too
                remove_cgroup(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _start(cgroup: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Two processes that die one with the other: the first waits for the second, the first of its namespace."""
    unshare = ["unshare", *_NAMESPACES, "--propagation", "private", "--fork", "--kill-child=SIGKILL", *command]
    chain = ["setpriv", "--pdeathsig", "KILL", *unshare]
    return subprocess.Popen(
        ["/bin/sh", "-c", _ENTER, "sh", os.fspath(cgroup), *chain],
        env={"PATH": commands.PATH},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
    )


def _only_child(parent: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := children.read_text().split()):
        if parent.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the machine's first process did not start")
        time.sleep(0.002)
    return int(found[0])


def _attend(machine: subprocess.Popen[bytes]) -> int:
    """Until stdin ends or the machine does."""
    pidfd = os.pidfd_open(machine.pid)
    try:
        ready, _, _ = select.select([sys.stdin.fileno(), pidfd], [], [])
    finally:
        os.close(pidfd)
    return 1 if pidfd in ready else 0


if __name__ == "__main__":
    sys.exit(main())
