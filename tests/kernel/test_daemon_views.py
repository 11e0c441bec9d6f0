# SPDX-License-Identifier: Apache-2.0
"""The real daemon, and sockets that were rewritten under a generation that is not in force any more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.backend import Backend
from support.governed import Governed, eventually, governed
from support.sandbox import PrivateCgroup

HEAD = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: [/app]}
"""
REWRITING = """\
  egress: [{action: redirect, to: [192.0.2.20], redirect: {to: [127.0.0.1]}}]
  bind: [{action: rewrite, addresses: [127.0.0.9], ports: [81], rewrite: {port: 8181}}]
"""
OTHER = "  socket: [{action: allow, set: {priority: 1}}]\n"

# Talks to a redirected address, and after a line of input to where that leads. Prints what its sockets see.
_APP = """
import json, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
connected, loose = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
bound = socket.create_server(("127.0.0.9", 81))
for address in ("192.0.2.20", "127.0.0.1"):
    place = (address, int(sys.argv[2]))
    connected.connect(place)
    loose.sendto(b"?", place)
    seen = [connected.getpeername()[0], loose.recvfrom(64)[1][0], bound.getsockname()[1]]
    print(json.dumps(seen), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


def test_sockets_see_the_truth_when_no_policy_speaks_of_addresses_any_more(app: Governed) -> None:
    app.daemon.write_policy("app.yaml", HEAD + REWRITING)
    app.start()
    with Backend("one") as backend, _App(app.app, backend.port) as talker:
        assert talker.seen() == ["192.0.2.20", "192.0.2.20", 81]
        app.daemon.write_policy("app.yaml", HEAD + OTHER)
        app.daemon.ask("reload")
        eventually(lambda: not (app.pin_dir / "links" / "post_bind4").exists(), "what is not needed is detached")
        assert talker.seen() == ["127.0.0.1", "127.0.0.1", 81]


class _App:
    def __init__(self, cgroup: PrivateCgroup, port: int) -> None:
        arguments = [sys.executable, "-c", _APP, str(cgroup.path), str(port)]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._asked = False

    def seen(self) -> list[Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._asked:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._asked = True
        found: list[Any] = json.loads(self._process.stdout.readline())
        return found

    def __enter__(self) -> _App:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)
