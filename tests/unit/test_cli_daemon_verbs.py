# SPDX-License-Identifier: Apache-2.0
"""The verbs that speak with a daemon, against the real control server with answers of our own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cgnetd.cli import client, ctl
from cgnetd.cli.answer import Style
from cgnetd.cli.events import line
from cgnetd.cli.problems import DaemonError
from cgnetd.errors import CgnetdError, NotRunningError, PolicyError, Problem
from cgnetd.service.control import Answer, ControlServer, Outlet
from cgnetd.service.listener import Listener
from cgnetd.service.peer import Peer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may use the control socket: run as root")

FLOW: dict[str, Any] = {
    "type": "flow",
    "time": "2026-01-31T12:00:00.000000Z",
    "verdict": "deny",
    "shadow_verdict": "deny",
    "hook": "connect",
    "protocol": "tcp",
    "remote_address": "2001:db8::1",
    "remote_port": 443,
    "errno": "ECONNREFUSED",
    "policy": "web",
    "rule": "rest",
    "file": "/p/web.yaml",
    "line": 8,
    "unit": "web.service",
    "user_unit": "",
    "cgroup": "/system.slice/web.service",
    "pid": 7,
    "comm": "curl",
    "count": 3,
    "collected": False,
}
STATUS: dict[str, Any] = {
    "version": "1",
    "pid": 7,
    "enforcing": True,
    "reasons": [],
    "generation": 4,
    "governed_cgroups": 2,
    "cgroup_root": "/sys/fs/cgroup",
    "pin_dir": "/p",
    "policies": [{"name": "web", "tier": "normal", "priority": 500, "mode": "enforce", "rules": 3, "governed": 1}],
    "counters": [
        {"policy": "web", "rule": "rest", "file": "/p/web.yaml", "line": 8, "enforced": 12, "shadow": 0},
        {"policy": "web", "rule": "idle", "file": "/p/web.yaml", "line": 9, "enforced": 0, "shadow": 0},
    ],
    "problems": [{"file": "/p/x.yaml", "line": 1, "column": 2, "key": "spec", "message": "wrong"}],
}


class Replies:
    """A daemon's answers by verb; what was asked is remembered."""

    def __init__(self) -> None:
        self.status = dict(STATUS)
        self.diff: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, verb: str, args: Mapping[str, Any], _peer: Peer) -> Answer:
        self.asked.append((verb, dict(args)))
        if verb == "status":
            return Answer(self.status)
        if verb == "reload":
            raise PolicyError([Problem("/p/x.yaml", 1, 2, "spec", "wrong")])
        if verb == "explain":
            return Answer(_explained(args))
        if verb == "events":
            return Answer({}, _two_events)
        if verb == "diff":
            return Answer(self.diff)
        return Answer({"version": "1"})


def _explained(args: Mapping[str, Any]) -> dict[str, Any]:
    outcome = {"verdict": "deny", "errno": "EPERM", "policy": "web", "rule": "rest", "file": "f", "line": 8}
    steps = [{"policy": "web", "tier": "normal", "audit": False, "outcome": "rule rest: deny", "file": "f", "line": 8}]
    return {"cgroup": args["cgroup"], "source": "generation 4", "steps": steps} | {
        prefix + key: value for prefix in ("", "shadow_") for key, value in outcome.items()
    }


async def _two_events(outlet: Outlet) -> None:
    outlet.send(FLOW)
    outlet.send({"type": "policy-loaded", "time": "2026-01-31T12:00:01.000000Z", "message": "generation 4"})
    await outlet.drain()


@contextlib.contextmanager
def serving(path: Path, replies: Replies) -> Iterator[None]:
    """The control server in a thread of its own."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        server = ControlServer(replies)
        with Listener(str(path)) as listener:
            await server.start(listener.socket)
            started.set()
            await stop.wait()
            await server.close()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(60)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def replies(tmp_path: Path) -> Iterator[Replies]:
    found = Replies()
    with serving(tmp_path / "c.sock", found):
        yield found


def cgnetctl(tmp_path: Path, *words: str) -> int:
    return ctl.main(["--control-socket", str(tmp_path / "c.sock"), *words])


def test_status_exits_0_when_enforcing_and_shows_what_decided(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cgnetctl(tmp_path, "status") == 0
    out = capsys.readouterr().out
    assert "enforcing" in out
    assert "web/rest" in out
    assert "web/idle" not in out
    assert "problem: /p/x.yaml:1:2: spec: wrong" in out
    assert "memory" not in out


def test_status_shows_the_memory_of_what_is_in_force(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies.status |= {"sizes": {"image_bytes": 3 * 65536, "limit_bytes": 64 * 1024**2, "rules": 5}}
    assert cgnetctl(tmp_path, "status") == 0
    out = capsys.readouterr().out
    assert re.search(r"memory: +192\.0 KiB of tables, at most 64\.0 MiB \(limits\.image_bytes\)\n", out)


def test_status_shows_backends_and_what_is_waited_for(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = {"address": "10.0.0.2", "port": 0, "weight": 1, "share": 0.0, "alive": False, "error": "no answer"}
    alive = {"address": "::1", "port": 53, "weight": 2, "share": 1.0, "alive": True, "since": "2026-01-31T12:00:00.1Z"}
    replies.status |= {
        "services": [
            {"name": "db", "probed": True, "backends": [dead, alive]},
            {"name": "plain", "probed": False, "backends": [alive]},
        ],
        "devices": [{"name": "wg0", "index": 0, "present": False}, {"name": "lo", "index": 1, "present": True}],
        "sources": [],
        "waiting": ["waiting for device wg0"],
    }
    assert cgnetctl(tmp_path, "status") == 0
    out = capsys.readouterr().out
    assert "wg0 (missing), lo\n" in out
    assert "sources:" not in out
    assert "  waiting for device wg0\n" in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("  db", "  plain"))]
    assert rows == [
        ["db", "10.0.0.2", "1", "0.0", "%", "dead", "no", "answer"],
        ["db", "[::1]:53", "2", "100.0", "%", "alive", "2026-01-31T12:00:00"],
        ["plain", "[::1]:53", "2", "100.0", "%", "not", "probed", "2026-01-31T12:00:00"],
    ]


def test_status_exits_1_with_the_reasons_when_not_enforcing(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies.status |= {"enforcing": False, "reasons": ["it was flushed"]}
    assert cgnetctl(tmp_path, "status") == 1
    out = capsys.readouterr().out
    assert "NOT ENFORCING" in out
    assert "because it was flushed" in out


def test_reload_exits_as_the_daemon_says_with_every_problem(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cgnetctl(tmp_path, "reload", "--json") == 78
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["problems"] == [{"file": "/p/x.yaml", "line": 1, "column": 2, "key": "spec", "message": "wrong"}]
    assert cgnetctl(tmp_path, "reload") == 78
    assert capsys.readouterr().err == "cgnetctl: error: /p/x.yaml:1:2: spec: wrong\n"


def test_explain_asks_the_daemon_and_exits_1_for_a_deny(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cgnetctl(tmp_path, "explain", "/a", "connect", "udp", "[::ffff:10.0.0.1]:53") == 1
    asked = {"cgroup": "/a", "hook": "connect", "protocol": "udp", "address": "10.0.0.1", "port": 53, "v6_only": False}
    assert replies.asked[-1] == ("explain", asked)
    assert "deny (EPERM)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ({"rules": {"added": [], "removed": [], "changed": []}, "verdicts": {"checked": 3, "changed": []}}, 0),
        ({"services": {"added": [{"service": "db"}]}}, 1),
        ({"problems": ["/p/x.yaml:1:2: wrong"]}, 78),
    ],
)
def test_diff_exits_as_it_differs(
    found: dict[str, Any], code: int, replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies.diff = found
    assert cgnetctl(tmp_path, "diff", "--json") == code
    assert json.loads(capsys.readouterr().out) == found
    assert cgnetctl(tmp_path, "diff") == code
    assert replies.asked[-1] == ("diff", {})
    assert cgnetctl(tmp_path, "diff", "--policy-dir", "/a", "--policy-dir", "b") == code
    assert replies.asked[-1] == ("diff", {"policy_dirs": ["/a", os.path.abspath("b")]})


def test_events_with_json_are_one_document_a_line(
    replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cgnetctl(tmp_path, "events", "-n", "5", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(text)["type"] for text in lines] == ["flow", "policy-loaded"]
    assert replies.asked == [("events", {"follow": False, "count": 5})]


def test_events_followed_end_after_n(replies: Replies, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cgnetctl(tmp_path, "events", "-f", "-n", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert replies.asked == [("events", {"follow": True})]


def test_line_of_a_flow_says_who_what_and_by_which_rule() -> None:
    text = line(FLOW, Style())
    for part in ("deny", "web.service", "[2001:db8::1]:443", "ECONNREFUSED", "web/rest (/p/web.yaml:8)", "3 times"):
        assert part in text


def test_line_of_a_shadow_deny_names_the_audit_policy() -> None:
    shadow = {"shadow_policy": "trial", "shadow_rule": "nothing", "shadow_file": "t", "shadow_line": 1}
    text = line(FLOW | {"verdict": "allow", "errno": ""} | shadow, Style())
    assert "allow (audit: deny)" in text
    assert "trial/nothing (t:1)" in text


def test_line_of_a_redirect_says_where_from_and_where_to() -> None:
    new = {"verdict": "redirect", "shadow_verdict": "redirect", "errno": "", "new_address": "::1", "new_port": 8080}
    text = line(FLOW | new, Style())
    assert "redirect" in text
    assert "[2001:db8::1]:443  to [::1]:8080  by web/rest" in text


def test_line_of_a_call_that_failed_after_its_rule_says_why() -> None:
    text = line(FLOW | {"reason": "no backend of service db is alive"}, Style())
    assert "by web/rest (/p/web.yaml:8)  no backend of service db is alive" in text


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ({"hook": "connect", "protocol": "unix", "name": "@bus", "new_name": "/run/bus"}, "unix  @bus  to /run/bus"),
        ({"hook": "create", "protocol": "other", "name": "", "socket_type": "raw"}, "create  other  raw"),
    ],
)
def test_line_of_a_flow_without_addresses_names_what_it_has(what: dict[str, Any], shown: str) -> None:
    assert shown in line(FLOW | {"remote_address": "", "remote_port": 0} | what, Style())


def test_call_reports_the_daemons_own_error_with_its_exit_code(replies: Replies, tmp_path: Path) -> None:
    with pytest.raises(DaemonError) as error:
        client.call(str(tmp_path / "c.sock"), "reload")
    assert error.value.exit_code == 78


@pytest.mark.parametrize(
    ("reply", "expected"), [(b"", NotRunningError), (b"hello\n", CgnetdError), (b"[]\n", CgnetdError)]
)
def test_call_of_something_that_is_not_cgnetd_is_told(
    reply: bytes, expected: type[CgnetdError], tmp_path: Path
) -> None:
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(expected) as error:
            client.call(path, "status")
        thread.join()
    assert path in str(error.value)


def test_call_of_a_stale_socket_says_that_nobody_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    with pytest.raises(NotRunningError, match="nobody answers"):
        client.call(path, "status")
