# SPDX-License-Identifier: Apache-2.0
"""What people are told of calls that go elsewhere, by a real daemon, beside what becomes of these calls."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.cli import ctl
from support.governed import Governed, eventually, governed
from support.sandbox import PrivateCgroup

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: ["/app"]}}
  egress:
    - {{name: no-local, action: deny, to: [127.0.0.2], errno: EHOSTUNREACH}}
    - {{name: api, action: redirect, to: [192.0.2.10], ports: [80], redirect: {{to: "127.0.0.1:{port}"}}, log: true}}
    - {{name: shut, action: redirect, to: [192.0.2.11], redirect: {{to: 127.0.0.2}}}}
    - {{name: db, action: redirect, to: [service:db]}}
    - {{name: wan, action: allow, to: [127.0.0.3], source: {{address: 192.0.2.99}}}}
  socket:
    - {{name: nowhere, action: allow, families: [inet6], set: {{device: nosuchdevice0}}}}
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec:
  addresses: [192.0.2.20]
  ports: [{{port: 5432}}]
  backends: [{{address: 127.0.0.1, port: {port}, weight: 3}}, {{address: 127.0.0.4, port: 9}}]
"""


class Cli:
    """Runs cgnetctl against the daemon."""

    def __init__(self, app: Governed, capture: pytest.CaptureFixture[str]) -> None:
        self._socket = str(app.daemon.control_path)
        self._capture = capture

    def __call__(self, *words: str) -> tuple[int, str]:
        self._capture.readouterr()
        code = ctl.main(["--control-socket", self._socket, *words])
        captured = self._capture.readouterr()
        return code, captured.out + captured.err

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out = self(*words, "--json")
        return code, json.loads(out)


@pytest.fixture
def port() -> Iterator[int]:
    """Of somebody who listens on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path, port: int) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        found.daemon.write_policy("app.yaml", POLICY.format(port=port))
        found.start()
        yield found


@pytest.fixture
def cgnetctl(app: Governed, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(app, capsys)


def reach(cgroup: PrivateCgroup, address: str, port: int) -> tuple[int, tuple[str, int] | None]:
    """The errno of a TCP connect from inside a cgroup, and the peer that the program sees."""

    def call() -> tuple[int, tuple[str, int] | None]:
        with socket.socket() as made:
            number = made.connect_ex((address, port))
            return number, made.getpeername() if not number else None

    found: tuple[int, tuple[str, int] | None] = cgroup.call(call)
    return found


ASKED = {  # exit code, verdict, errno, what is said; {} is the port of the listener
    ("192.0.2.10", 80): (0, "redirect", "", "192.0.2.10:80: redirected to 127.0.0.1:{}\n  by app/api at"),
    ("192.0.2.11", 80): (1, "deny", "EHOSTUNREACH", "leads to 127.0.0.2:80, and that is denied"),
    ("127.0.0.3", 80): (1, "deny", "EADDRNOTAVAIL", "because the host does not have source address 192.0.2.99"),
}


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked[0])
def test_explain_says_what_becomes_of_the_call(asked: tuple[str, int], app: Governed, cgnetctl: Cli, port: int) -> None:
    code, verdict, name, said = ASKED[asked]
    words = ("explain", "/app", "connect", "tcp", f"{asked[0]}:{asked[1]}")
    found, data = cgnetctl.json(*words)
    assert (found, data["verdict"], data["errno"]) == (code, verdict, name)
    assert said.format(port) in cgnetctl(*words)[1]
    number, peer = reach(app.app, *asked)
    assert (errno.errorcode.get(number, ""), peer) == (name, None if name else asked)


def test_explain_shows_the_choice_of_a_service(cgnetctl: Cli, port: int) -> None:
    code, said = cgnetctl("explain", "/app", "connect", "tcp", "192.0.2.20:5432")
    assert code == 0
    assert f"127.0.0.1:{port}" in said
    assert "127.0.0.4:9" in said
    assert said.count("alive") == 2


def test_new_socket_on_a_device_that_is_missing_is_explained_and_waited_for(app: Governed, cgnetctl: Cli) -> None:
    code, said = cgnetctl("explain", "/app", "create", "inet6/stream")
    assert code == 1
    assert "inet6/stream: deny (ENODEV)" in said
    assert "nosuchdevice0 does not exist" in said
    _, said = cgnetctl("status")
    assert "nosuchdevice0 (missing)" in said
    assert "waiting for device nosuchdevice0" in said
    assert "waiting for source address 192.0.2.99" in said


def test_status_shows_the_backends_with_their_shares(cgnetctl: Cli, port: int) -> None:
    code, data = cgnetctl.json("status")
    (service,) = data["services"]
    assert (code, service["name"]) == (0, "db")
    assert sum(backend["share"] for backend in service["backends"]) == pytest.approx(1)
    rows = [line.split() for line in cgnetctl("status")[1].splitlines() if line.startswith("  db")]
    assert [(row[1], row[5:]) for row in rows] == [
        (f"127.0.0.1:{port}", ["not", "probed"]),
        ("127.0.0.4:9", ["not", "probed"]),
    ]


def test_event_of_a_redirect_says_where_from_and_where_to(app: Governed, cgnetctl: Cli, port: int) -> None:
    assert reach(app.app, "192.0.2.10", 80) == (0, ("192.0.2.10", 80))
    app.await_record("flow")
    _, said = cgnetctl("events")
    assert f"connect  tcp  192.0.2.10:80  to 127.0.0.1:{port}  by app/api" in said
    assert "redirect" in said


def test_diff_tells_rules_and_calls_and_changes_nothing(
    app: Governed, cgnetctl: Cli, tmp_path: Path, port: int
) -> None:
    code, said = cgnetctl("diff")
    assert (code, said.splitlines()[-1]) == (0, "a reload would change nothing")
    assert "warning: " in said  # of the redirect into a deny
    assert reach(app.app, "192.0.2.10", 80)[0] == 0
    eventually(lambda: app.await_record("flow"), "the event of the redirect")
    other = tmp_path / "other"
    other.mkdir()
    text = POLICY.format(port=port).replace("name: api, action: redirect", "name: no-api, action: deny")
    text = text.replace(f', redirect: {{to: "127.0.0.1:{port}"}}, log: true', "").replace("weight: 3", "weight: 2")
    (other / "app.yaml").write_text(text, encoding="utf-8")
    code, said = cgnetctl("diff", "--policy-dir", str(other))
    assert code == 1
    for part in (f"- app/api: redirect to 127.0.0.1:{port}", "+ app/no-api: deny", "~ db (backends)"):
        assert part in said
    assert f"redirect to 127.0.0.1:{port} -> deny  /app connect tcp 192.0.2.10:80  1 call, by app/no-api" in said
    assert reach(app.app, "192.0.2.10", 80)[0] == 0
    (other / "app.yaml").write_text("kind: Policy\n", encoding="utf-8")
    assert cgnetctl("diff", "--policy-dir", str(other))[0] == 78
