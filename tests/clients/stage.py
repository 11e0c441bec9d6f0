# SPDX-License-Identifier: Apache-2.0
"""The real daemon with the redirecting policies, the cgroups they govern, and programs run there.

Must not know programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from clients import policies
from clients.world import World
from support import sandbox
from support.daemon import RealDaemon
from support.sandbox import PrivateCgroup

TESTS_PATH = Path(__file__).parent.parent
LONGEST_S = 120.0
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def program(package: str, *names: str) -> str:
    """The path of the first of these programs (globs allowed) that is there; skips, naming the package, if none is."""
    for name in names:
        found = sorted(map(str, Path("/").glob(name[1:]))) if name.startswith("/") else [shutil.which(name, path=_PATH)]
        if found and found[-1]:
            return found[-1]
    pytest.skip(f"no {names[0]}; install it: apt-get install {package}")


class Stage:
    """A private tree: /app, whose calls are redirected, /proxy, which may call anybody, and /servers, ungoverned."""

    def __init__(self, directory: Path, object_dir: Path) -> None:
        self.directory = directory
        with ExitStack() as undo:
            tree = undo.enter_context(sandbox.cgroup())
            pins = undo.enter_context(sandbox.bpffs_mount())
            self.app, self.proxy, self.servers = map(tree.child, ("app", "proxy", "servers"))
            self._world = World(directory, self.servers, policies.V4.asked, policies.present())
            undo.callback(self._world.close)
            self.daemon = undo.enter_context(RealDaemon(directory, tree.path, pins / "cgnetd"))
            self.daemon.write_policy("app.yaml", policies.app())
            self.daemon.write_policy("proxy.yaml", policies.PROXY)
            self.daemon.start(object_dir=object_dir)
            self._undo = undo.pop_all()

    def run(self, argv: Sequence[str], *, timeout_s: float = LONGEST_S, **environment: str) -> str:
        """What a program in /app writes to stdout, then to stderr. AssertionError if it fails or lasts too long."""
        process = self._popen(
            self.app, argv, self.directory, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            (self.app.path / "cgroup.kill").write_text("1")
            out, err = process.communicate()
        text = out.decode(errors="replace") + err.decode(errors="replace")
        assert process.returncode == 0, f"exit code {process.returncode} of {' '.join(argv)}: {text}"
        return text

    def serve(
        self, argv: Sequence[str], listeners: Iterable[tuple[str, int]], *, cgroup: PrivateCgroup | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a server outside of the policies, or in `cgroup`; returns when it listens. RuntimeError if it ends."""
        with (self.directory / "server.log").open("ab") as log:
            process = self._popen(cgroup or self.servers, argv, TESTS_PATH, {}, stdout=log, stderr=log)
        try:
            self._world.await_listeners(process, listeners)
        except RuntimeError as error:
            stop(process)
            raise RuntimeError(f"{argv[0]}: {error}: {(self.directory / 'server.log').read_text()[-4000:]}") from None
        return process

    def _popen(
        self, cgroup: PrivateCgroup, argv: Sequence[str], directory: Path, extra: Mapping[str, str], **pipes: object
    ) -> subprocess.Popen[bytes]:
        environment = {"PATH": _PATH, "HOME": str(self.directory), "LANG": "C.UTF-8", **extra}
        inside = self._world.inside(argv, directory)
        return cgroup.popen(inside, stdin=subprocess.DEVNULL, env=environment, **pipes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._undo.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
