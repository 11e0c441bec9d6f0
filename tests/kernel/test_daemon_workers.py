# SPDX-License-Identifier: Apache-2.0
"""The real daemon that leaves probes and flows to workers, with and without any."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.service.worker import PROBER, SOCKETS, WORKERS_VARIABLE
from support.governed import Governed, eventually, governed
from support.held import held_flow
from support.sandbox import PrivateCgroup
from support.workers import Activator

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
  backends: [{{address: 127.0.0.1, port: {port}}}]
  health: {{interval: 200ms, timeout: 100ms, fall: 5}}
  onBackendDown: close
"""


@pytest.fixture
def app(
    tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Governed]:
    """A daemon that leaves probes and flows to workers, which are looked for in workers/."""
    (tmp_path / "workers").mkdir()
    monkeypatch.setenv(WORKERS_VARIABLE, str(tmp_path / "workers"))
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


# Takes connections and keeps them when it is told to take no more.
_SERVER = """
import signal, socket
def stop(*_):
    raise InterruptedError
signal.signal(signal.SIGUSR1, stop)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
kept = []
try:
    while True:
        kept.append(listening.accept()[0])
except InterruptedError:
    listening.close()
signal.pause()
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as made:
        yield made
        made.kill()


def test_daemon_has_flows_closed_by_a_worker(
    app: Governed, tmp_path: Path, objects: Path, server: subprocess.Popen[str]
) -> None:
    assert server.stdout is not None
    app.daemon.write_policy("app.yaml", POLICY.format(port=int(server.stdout.readline())))
    directory = tmp_path / "workers"
    with Activator(directory, PROBER), Activator(directory, SOCKETS, object_dir=objects) as closer:
        app.start()
        with held_flow(app.app, VIRTUAL, PORT) as fate:
            assert not closer.started
            server.send_signal(signal.SIGUSR1)
            assert app.await_record("backend-down")["closed"] == {"udp": 0, "tcp": 1}
            assert fate() == "ConnectionAbortedError"
        assert len(closer.started) == 1


def test_daemon_without_workers_says_so_and_closes_nothing(
    app: Governed, tmp_path: Path, server: subprocess.Popen[str]
) -> None:
    assert server.stdout is not None
    app.daemon.write_policy("app.yaml", POLICY.format(port=int(server.stdout.readline())))
    app.start()
    with held_flow(app.app, VIRTUAL, PORT) as fate:
        server.send_signal(signal.SIGUSR1)
        assert "worker prober" in app.await_record("probes-failed")["error"]
        assert any("worker prober" in line for line in app.daemon.ask("status")["waiting"])
        assert not app.records("backend-down")
        with Activator(tmp_path / "workers", PROBER):
            told = app.await_record("backend-down")
            assert app.await_record("probes-resumed")
        assert "its udp flows could not" not in told["message"]
        assert "its tcp flows could not be closed: reach worker sockets" in told["message"]
        eventually(lambda: app.records("service-down"), "that nobody is left")
        assert fate() == "kept"
