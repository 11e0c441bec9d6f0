# SPDX-License-Identifier: Apache-2.0
"""A real daemon with one governed cgroup, and calls made in it. Must not know what a test expects."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.daemon import RealDaemon
from support.sandbox import PrivateCgroup

OPEN, SHUT = 1111, 2222  # ports that POLICY allows and denies
PATIENCE_S = 60.0  # others may keep the host busy

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: ["/app", "/late/*"]}}
  egress:
    - {{name: open, action: allow, ports: [{allowed}]}}
    - {{name: rest, action: deny, errno: EHOSTUNREACH}}
"""


def policy(allowed: int = OPEN) -> str:
    """Allows one port from /app and below /late, and denies the rest with EHOSTUNREACH."""
    return POLICY.format(allowed=allowed)


def connect(cgroup: PrivateCgroup, port: int) -> int:
    """Connect a new UDP socket to loopback from inside a cgroup: 0, or the errno that one of the two calls got. Nobody
    needs to listen."""

    def call() -> int:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
                return made.connect_ex(("127.0.0.1", port))
        except OSError as error:
            return error.errno or 0

    found: int = cgroup.call(call)
    return found


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer of `condition`; AssertionError if none comes in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return found


class Governed:
    """The daemon, its private tree with the cgroup /app, and what it wrote."""

    def __init__(self, daemon: RealDaemon, tree: PrivateCgroup, pin_dir: Path, object_dir: Path) -> None:
        self.daemon = daemon
        self.tree = tree
        self.pin_dir = pin_dir
        self.app = tree.child("app")
        self._object_dir = object_dir

    def start(self, *extra: str) -> None:
        self.daemon.start(object_dir=self._object_dir, extra=extra)

    def await_passes(self, count: int = 2) -> None:
        """Until the daemon has made so many more passes: what it does by itself at each has been done then."""
        for _ in range(count):
            last = self._last_pass()
            eventually(lambda last=last: self._last_pass() != last, "another pass")

    def _last_pass(self) -> str:
        return str(self.daemon.ask("status")["last_reconcile"]["time"])

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The JSON lines of one type that the daemon wrote so far."""
        found = []
        for line in self.daemon.output_path.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                record = json.loads(line)
                if record["type"] == kind:
                    found.append(record)
        return found

    def await_record(self, kind: str, after: int = 0) -> dict[str, Any]:
        """The newest record of a type, once there are more than `after`."""
        eventually(lambda: len(self.records(kind)) > after, kind)
        return self.records(kind)[-1]


@contextmanager
def governed(directory: Path, tree: PrivateCgroup, pin_dir: Path, object_dir: Path) -> Iterator[Governed]:
    """Not started yet, with `policy()` in app.yaml."""
    with RealDaemon(directory, tree.path, pin_dir) as daemon:
        daemon.write_policy("app.yaml", policy())
        yield Governed(daemon, tree, pin_dir, object_dir)
