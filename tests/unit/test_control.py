# SPDX-License-Identifier: Apache-2.0
"""The control socket: who may speak, what is understood, and that nobody can hold the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cgnetd.errors import CgnetdError, KernelError, PolicyError, PrivilegeError, Problem
from cgnetd.service.control import (
    BACKLOG_BYTES,
    CLIENTS,
    FOLLOWERS,
    FOLLOWING_MEMBERS,
    LINE_BYTES,
    MEMBERS,
    Answer,
    ControlServer,
    Outlet,
)
from cgnetd.service.listener import Listener
from cgnetd.service.peer import Peer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may use the control socket: run as root")
pytestmark = needs_root

Talk = Callable[[str, ControlServer], Awaitable[None]]


async def handle(verb: str, args: Mapping[str, Any], _peer: Peer) -> Answer:
    if verb == "policy":
        raise PolicyError([Problem("f", 1, 2, "k", "m")])
    if verb == "kernel":
        raise KernelError("load program: refused")
    if verb == "fault":
        raise ZeroDivisionError("oops")
    if verb == "count":
        return Answer({}, count)
    return Answer({"verb": verb, **args})


async def count(outlet: Outlet) -> None:
    for number in range(3):
        outlet.send({"number": number})
    await outlet.closed()


async def flood(outlet: Outlet) -> None:
    while outlet.send({"filler": "x" * 10_000}):
        pass


def serve(path: Path, talk: Talk, handler: Any = handle) -> None:
    async def main() -> None:
        listener = Listener(str(path))
        server = ControlServer(handler)
        await server.start(listener.socket)
        try:
            await asyncio.wait_for(talk(str(path), server), 20)
        finally:
            await server.close()
            listener.close()

    asyncio.run(main())


async def ask(path: str, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines, end the sending side, and read every answer."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    try:
        writer.write(b"".join(lines))
        await writer.drain()
        writer.write_eof()
        return [json.loads(line) async for line in reader]
    finally:
        writer.close()
        await writer.wait_closed()


def test_requests_are_answered_in_turn_on_one_connection(tmp_path: Path) -> None:
    async def talk(path: str, _: ControlServer) -> None:
        answers = await ask(path, b'{"verb": "a"}\n', b'{"verb": "b", "args": {"x": 1}}\n')
        assert answers == [
            {"ok": True, "result": {"verb": "a"}},
            {"ok": True, "result": {"verb": "b", "x": 1}},
        ]

    serve(tmp_path / "s", talk)


def test_errors_carry_their_kind_exit_code_and_problems(tmp_path: Path) -> None:
    async def talk(path: str, _: ControlServer) -> None:
        policy, kernel, fault = await ask(path, *(b'{"verb": "%s"}\n' % v for v in (b"policy", b"kernel", b"fault")))
        problem = {"file": "f", "line": 1, "column": 2, "key": "k", "message": "m"}
        assert policy["error"] == {"kind": "policy", "exit_code": 78, "message": "f:1:2: k: m", "problems": [problem]}
        assert (kernel["error"]["kind"], kernel["error"]["exit_code"]) == ("kernel", 1)
        assert fault["error"]["kind"] == "internal"
        assert "ZeroDivisionError: oops" in fault["error"]["message"]

    serve(tmp_path / "s", talk)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe garbage\n",
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b"{}\n",
        b'{"verb": 1}\n',
        b'{"verb": "a", "args": []}\n',
        b'{"verb": "a", "extra": 1}\n',
        b"[" * 60_000 + b"\n",
        b"\n",
        b'{"verb": "cut off"',
        b"x" * (LINE_BYTES + 10),
    ],
)
def test_garbage_gets_one_clear_error_and_the_connection_ends(tmp_path: Path, garbage: bytes) -> None:
    async def talk(path: str, _: ControlServer) -> None:
        answers = await ask(path, garbage, b'{"verb": "never"}\n')
        assert len(answers) == 1
        assert answers[0]["error"]["kind"] == "usage"
        assert answers[0]["error"]["message"].startswith("read request: ")
        assert (await ask(path, b'{"verb": "still"}\n'))[0]["ok"]

    serve(tmp_path / "s", talk)


def test_streamed_events_follow_the_answer_until_the_client_leaves(tmp_path: Path) -> None:
    async def talk(path: str, server: ControlServer) -> None:
        answers = await ask(path, b'{"verb": "count"}\n')
        assert answers == [{"ok": True, "result": {}}, *({"event": {"number": n}} for n in range(3))]
        assert server.dropped_followers == 0

    serve(tmp_path / "s", talk)


def test_slow_follower_is_dropped_and_counted(tmp_path: Path) -> None:
    async def flooding(_verb: str, _args: Mapping[str, Any], _peer: Peer) -> Answer:
        return Answer({}, flood)

    async def talk(path: str, server: ControlServer) -> None:
        reader, writer = await asyncio.open_unix_connection(path, limit=1024)
        writer.write(b'{"verb": "x"}\n')
        while not server.dropped_followers:
            await asyncio.sleep(0.01)
        seen = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                seen += len(data)
        assert server.dropped_followers == 1
        assert seen < 2 * BACKLOG_BYTES
        writer.close()

    serve(tmp_path / "s", talk, flooding)


def test_too_many_clients_are_turned_away(tmp_path: Path) -> None:
    async def talk(path: str, _server: ControlServer) -> None:
        held = [await asyncio.open_unix_connection(path) for _ in range(CLIENTS)]
        reader, writer = await asyncio.open_unix_connection(path)
        answer = json.loads(await reader.readline())
        assert f"{CLIENTS} clients are connected" in answer["error"]["message"]
        for _, other in [*held, (reader, writer)]:
            other.close()
            await other.wait_closed()
        while not (await ask(path, b'{"verb": "again"}\n'))[0]["ok"]:  # until it has noticed that they left
            await asyncio.sleep(0.01)

    serve(tmp_path / "s", talk)


def test_followers_leave_room_for_others(tmp_path: Path) -> None:
    async def follow(path: str) -> tuple[dict[str, Any], asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"verb": "count"}\n')
        return json.loads(await reader.readline()), writer

    async def talk(path: str, _server: ControlServer) -> None:
        held = [await follow(path) for _ in range(FOLLOWERS)]
        assert all(answer["ok"] for answer, _ in held)
        refused, again = await follow(path)
        assert (refused["ok"], refused["error"]["exit_code"]) == (False, 1)
        assert (await ask(path, b'{"verb": "reload"}\n'))[0]["ok"]
        for writer in (held[0][1], again):
            writer.close()
            await writer.wait_closed()
        answer, last = await follow(path)
        while not answer["ok"]:  # until it has noticed that one left
            last.close()
            await asyncio.sleep(0.01)
            answer, last = await follow(path)
        for writer in (last, *(writer for _, writer in held[1:])):
            writer.close()
            await writer.wait_closed()

    serve(tmp_path / "s", talk)


def test_other_users_are_refused_even_if_the_mode_were_open(tmp_path: Path) -> None:
    async def talk(path: str, _: ControlServer) -> None:
        os.chmod(path, 0o666)
        os.seteuid(65534)
        try:
            connection = socket.socket(socket.AF_UNIX)
            os.chdir("/")
            connection.connect(path)
        finally:
            os.seteuid(0)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        answer = json.loads(await reader.readline())
        assert (answer["error"]["kind"], answer["error"]["exit_code"]) == ("privilege", 4)
        assert await reader.read() == b""
        writer.close()

    for directory in (tmp_path, *tmp_path.parents):
        if os.stat(directory).st_uid == 0 and directory != Path("/") and directory.name.startswith("pytest"):
            os.chmod(directory, 0o755)
    os.chmod(tmp_path, 0o755)
    serve(tmp_path / "s", talk)


def connected_as(path: str, uid: int, gid: int) -> socket.socket:
    """A connection of another user, who has no other groups."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
    return connection


GROUP = grp.getgrnam("daemon")


async def whose(verb: str, _args: Mapping[str, Any], peer: Peer) -> Answer:
    return Answer({"uid": peer.uid, "root": peer.is_root}, count if verb == "count" else None)


def admitting(tmp_path: Path, talk: Talk) -> None:
    """Serve a group."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.name.startswith("pytest"):
            os.chmod(directory, 0o755)
    os.chmod(tmp_path, 0o755)

    async def main() -> None:
        with Listener(str(tmp_path / "s"), GROUP.gr_name) as listener:
            assert listener.gid == GROUP.gr_gid
            server = ControlServer(whose)
            await server.start(listener.socket, for_root_alone=False)
            try:
                await asyncio.wait_for(talk(listener.path, server), 20)
            finally:
                await server.close()

    asyncio.run(main())


def test_members_are_served_and_known_as_such(tmp_path: Path) -> None:
    async def talk(path: str, _: ControlServer) -> None:
        found = os.stat(path)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, GROUP.gr_gid)
        reader, writer = await asyncio.open_unix_connection(sock=connected_as(path, 65534, GROUP.gr_gid))
        writer.write(b'{"verb": "x"}\n')
        assert json.loads(await reader.readline())["result"] == {"uid": 65534, "root": False}
        writer.close()
        with pytest.raises(PermissionError):
            connected_as(path, 65534, 65534)

    admitting(tmp_path, talk)


def test_members_leave_room_for_root(tmp_path: Path) -> None:
    async def talk(path: str, _: ControlServer) -> None:
        held = [
            await asyncio.open_unix_connection(sock=connected_as(path, 65534, GROUP.gr_gid)) for _ in range(MEMBERS)
        ]
        for reader, writer in held[:FOLLOWING_MEMBERS]:
            writer.write(b'{"verb": "count"}\n')
            assert json.loads(await reader.readline())["ok"]
        reader, writer = held[FOLLOWING_MEMBERS]
        writer.write(b'{"verb": "count"}\n')
        assert f"{FOLLOWING_MEMBERS} clients follow" in json.loads(await reader.readline())["error"]["message"]
        reader, extra = await asyncio.open_unix_connection(sock=connected_as(path, 65534, GROUP.gr_gid))
        assert f"{MEMBERS} clients are connected" in json.loads(await reader.readline())["error"]["message"]
        assert (await ask(path, b'{"verb": "count"}\n'))[0]["result"]["root"]
        for _reader, other in [*held, (reader, extra)]:
            other.close()

    admitting(tmp_path, talk)


def test_group_that_there_is_not_leaves_the_socket_to_root_and_says_so(tmp_path: Path) -> None:
    with Listener(str(tmp_path / "s"), "no such group") as listener:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        assert (listener.gid, listener.root_only) == (None, "there is no group no such group")


def test_socket_is_private_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "s"
    with Listener(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert not path.exists()


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with Listener(str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Listener(path):
        with pytest.raises(CgnetdError, match=f"process {os.getpid()} answers there"):
            Listener(path)
        assert os.path.exists(path)


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(CgnetdError, match="no socket is there"):
        Listener(str(tmp_path / "s"))
    assert (tmp_path / "s").read_text() == "precious"


def test_missing_permission_is_a_privilege_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(PrivilegeError):
            Listener(str(tmp_path / "run" / "s"))
    finally:
        os.seteuid(0)


def test_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = Listener(str(path))
    path.unlink()
    second = Listener(str(path))
    first.close()
    assert path.exists()
    second.close()
