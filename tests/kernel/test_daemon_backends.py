# SPDX-License-Identifier: Apache-2.0
"""The real daemon and a service with many backends, which all die at once: it goes on serving, and closes flows."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.governed import Governed, governed
from support.held import held_flow
from support.sandbox import PrivateCgroup

MANY = 250
LONGEST_S = 6.0  # one by one they would take some 0.05 s each, more where the host is busy
VIRTUAL, PORT = "192.0.2.20", 5432
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: [/app]}}
  egress: [{{action: redirect, to: ["service:db"]}}]
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec:
  addresses: [192.0.2.20]
  ports: [{{port: 5432}}]
  backends: [{backends}]
  health: {{interval: 200ms, timeout: 100ms, fall: 5}}
  onBackendDown: close
"""

# Takes connections on every address, and keeps them, also when a signal has said to take no more; tells its port.
_SERVER = """
import signal, socket
def stop(*_):
    raise InterruptedError
signal.signal(signal.SIGUSR1, stop)
listening = socket.create_server(("0.0.0.0", 0), backlog=1024)
print(listening.getsockname()[1], flush=True)
kept = []
try:
    while True:
        kept.append(listening.accept()[0])
except InterruptedError:
    listening.close()
signal.pause()
"""


def policy(port: int, count: int) -> str:
    return POLICY.format(
        backends=", ".join(f"{{address: 127.0.1.{number + 1}, port: {port}}}" for number in range(count))
    )


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as made:
        yield made
        made.kill()


def slowest_answer_s(app: Governed, until: Callable[[], bool]) -> float:
    """Of the daemon, asked again and again."""
    slowest_s, ends_s = 0.0, time.monotonic() + 120
    while not until():
        assert time.monotonic() < ends_s
        began_s = time.monotonic()
        app.daemon.ask("version")
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        time.sleep(0.02)
    return slowest_s


def test_daemon_serves_while_many_backends_die_and_go(app: Governed, server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    port = int(server.stdout.readline())
    app.daemon.write_policy("app.yaml", policy(port, MANY))
    app.start()
    with held_flow(app.app, VIRTUAL, PORT) as fate:
        server.send_signal(signal.SIGUSR1)
        assert slowest_answer_s(app, lambda: len(app.records("backend-down")) == MANY) < LONGEST_S
        assert fate() == "ConnectionAbortedError"
    assert sum(told["closed"]["tcp"] for told in app.records("backend-down")) == 1
    assert len(app.records("service-down")) == 1
    app.daemon.write_policy("app.yaml", policy(port, 1))
    began_s = time.monotonic()
    app.daemon.ask("reload")
    assert time.monotonic() - began_s < LONGEST_S
