# SPDX-License-Identifier: Apache-2.0
"""Long-lived sockets while the real daemon's policies and backends change under them, or the daemon goes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.backend import Backend
from support.governed import Governed, governed
from support.sandbox import PrivateCgroup

VIRTUAL, PORT = "192.0.2.20", 53
PLACE = [VIRTUAL, PORT]
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: [/app]}
  egress: [{name: dns, RULE}]
"""
SERVICE = """\
---
apiVersion: cgnetd/v1
kind: Service
metadata: {name: dns}
spec:
  addresses: [192.0.2.20]
  ports: [{port: 53}, {port: 53, protocol: udp}]
  backends: [{address: 127.0.0.1, port: BACKEND}]
"""
NO_RULE = POLICY.replace("RULE", "action: allow, to: [192.0.2.99]")

# Runs a line of Python at a time inside the cgroup, and answers with its value, or with the errno.
_INSIDE = """
import json, socket, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
scope = {"socket": socket, "time": time}
for line in sys.stdin:
    try:
        if line.startswith("= "):
            answer = eval(line[2:], scope)
        else:
            answer = exec(line, scope)
    except OSError as error:
        answer = {"errno": error.errno}
    print(json.dumps(answer.decode() if isinstance(answer, bytes) else answer), flush=True)
"""


class Inside:
    """A process in the cgroup that lives as long as the test."""

    def __init__(self, cgroup: PrivateCgroup) -> None:
        argv = [sys.executable, "-c", _INSIDE, str(cgroup.path)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def do(self, line: str) -> Any:
        """The value of "= EXPRESSION", None of a statement, {"errno": N} of a call that failed."""
        self.begin(line)
        return self.end()

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


@pytest.fixture
def one() -> Iterator[Backend]:
    with Backend("one") as made:
        yield made


@pytest.fixture
def two() -> Iterator[Backend]:
    with Backend("two") as made:
        yield made


@pytest.fixture
def inside(app: Governed) -> Iterator[Inside]:
    made = Inside(app.app)
    yield made
    made.close()


def by_service(backend: Backend) -> str:
    rule = POLICY.replace("RULE", 'action: redirect, to: ["service:dns"]')
    return rule + SERVICE.replace("BACKEND", str(backend.port))


def by_rule(backend: Backend) -> str:
    redirect = f'redirect: {{to: "127.0.0.1:{backend.port}"}}'
    return POLICY.replace("RULE", f"action: redirect, to: [{VIRTUAL}], {redirect}")


def put(app: Governed, text: str) -> None:
    app.daemon.write_policy("app.yaml", text)
    app.daemon.ask("reload")


def start(app: Governed, text: str) -> None:
    app.daemon.write_policy("app.yaml", text)
    app.start()


def sock(inside: Inside, name: str, kind: str) -> None:
    inside.do(f"{name} = socket.socket(socket.AF_INET, socket.SOCK_{kind}); {name}.settimeout(30)")


def test_resolver_that_waits_for_a_removed_backend_is_woken_and_asks_another_one(
    app: Governed, inside: Inside, one: Backend, two: Backend
) -> None:
    """As nginx does it: one connected socket for ever, which is connected again when it fails."""
    start(app, by_service(one))
    sock(inside, "r", "DGRAM")
    inside.do(f"r.connect(('{VIRTUAL}', {PORT}))")
    inside.do("r.send(b'?')")
    assert inside.do("= r.recv(64)") == "one"
    inside.begin("= r.recv(64)")
    put(app, by_service(two))
    assert inside.end() == {"errno": errno.ECONNABORTED}  # one that waits to its timeout gets no errno
    assert inside.do("= r.send(b'?')") == {"errno": errno.EDESTADDRREQ}
    inside.do(f"r.connect(('{VIRTUAL}', {PORT}))")
    inside.do("r.send(b'?')")
    assert inside.do("= list(r.recvfrom(64)[1])") == PLACE
    inside.do("r.send(b'?')")
    assert inside.do("= r.recv(64)") == "two"
    assert inside.do("= r.getpeername()") == PLACE


def test_bound_socket_survives_the_removal_of_a_backend_and_moves(
    app: Governed, inside: Inside, one: Backend, two: Backend
) -> None:
    start(app, by_service(one))
    sock(inside, "b", "DGRAM")
    inside.do("b.bind(('127.0.0.1', 0))")
    local = inside.do("= b.getsockname()")
    ask = f"= b.sendto(b'?', ('{VIRTUAL}', {PORT}))"
    assert (inside.do(ask), inside.do("= b.recvfrom(64)[0]")) == (1, "one")
    put(app, by_service(two))
    assert (inside.do(ask), inside.do("= b.recvfrom(64)[0]")) == (1, "two")
    assert inside.do(ask) == 1
    assert inside.do("= list(b.recvfrom(64)[1])") == PLACE
    assert inside.do("= b.getsockname()") == local
    put(app, NO_RULE)
    inside.do(f"b.sendto(b'?', ('127.0.0.1', {one.port}))")
    assert inside.do("= list(b.recvfrom(64)[1])") == ["127.0.0.1", one.port]


def test_answer_that_is_under_way_when_the_rule_goes_shows_who_was_asked(
    app: Governed, inside: Inside, one: Backend
) -> None:
    start(app, by_rule(one))
    sock(inside, "b", "DGRAM")
    inside.do(f"b.sendto(b'?', ('{VIRTUAL}', {PORT}))")
    put(app, NO_RULE)
    assert inside.do("= list(b.recvfrom(64)[1])") == PLACE


def test_peer_stays_whatever_becomes_of_the_rule_and_the_daemon(
    app: Governed, inside: Inside, one: Backend, two: Backend
) -> None:
    """Rule changed, daemon killed, started, rule removed, daemon started again: a view is the socket's."""
    start(app, by_rule(one))
    seen = []
    _connect(inside, "tcp", "STREAM")
    _connect(inside, "udp", "DGRAM")
    seen += _peers(inside, "tcp", "udp")
    put(app, by_rule(two))
    seen += _peers(inside, "tcp", "udp")
    app.daemon.kill()
    _connect(inside, "late_tcp", "STREAM")
    _connect(inside, "late_udp", "DGRAM")
    seen += _peers(inside, "tcp", "udp", "late_tcp", "late_udp")
    app.start()
    put(app, NO_RULE)
    seen += _peers(inside, "tcp", "udp", "late_tcp", "late_udp")
    app.daemon.stop()
    app.start()
    seen += _peers(inside, "tcp", "udp", "late_tcp", "late_udp")
    assert seen == [PLACE] * 16
    assert [_ask(inside, name) for name in ("tcp", "udp", "late_tcp", "late_udp")] == ["one", "one", "two", "two"]


def _connect(inside: Inside, name: str, kind: str) -> None:
    sock(inside, name, kind)
    assert inside.do(f"{name}.connect(('{VIRTUAL}', {PORT}))") is None


def _peers(inside: Inside, *names: str) -> list[Any]:
    return [inside.do(f"= {name}.getpeername()") for name in names]


def _ask(inside: Inside, name: str) -> Any:
    inside.do(f"{name}.send(b'?')")
    return inside.do(f"= {name}.recv(64)")


def test_socket_that_connects_anew_after_the_rule_went_shows_the_truth(
    app: Governed, inside: Inside, one: Backend
) -> None:
    start(app, by_rule(one))
    sock(inside, "p", "DGRAM")
    inside.do(f"p.connect(('{VIRTUAL}', {PORT}))")
    put(app, NO_RULE)
    inside.do(f"p.connect(('127.0.0.1', {one.port}))")
    assert inside.do("= p.getpeername()") == ["127.0.0.1", one.port]
    inside.do("p.send(b'?')")
    assert inside.do("= list(p.recvfrom(64)[1])") == ["127.0.0.1", one.port]
