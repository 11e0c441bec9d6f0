# SPDX-License-Identifier: Apache-2.0
"""The control socket: JSON lines over a UNIX stream socket, for root and, if there is one, for a group.

One request a line, `{"verb": "...", "args": {...}}`, one answer a line: `{"ok": true, "result": {...}}` or
`{"ok": false, "error": {...}}`. A verb that streams sends `{"event": {...}}` lines behind its answer and ends with the
connection. Bytes that are no request end the connection after an answer that says so. Must not know what the verbs do,
nor who may have which one done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cgnetd.errors import (
    CgnetdError,
    KernelError,
    PolicyError,
    PrivilegeError,
    Problem,
    SettingsError,
    UsageError,
)
from cgnetd.service.peer import Peer, peer_of

LINE_BYTES = 64 * 1024
CLIENTS = 32
FOLLOWERS = 24  # of these: who follows events for hours must leave room for those who reload and flush
MEMBERS = 24  # clients that are not root, who must always find room
FOLLOWING_MEMBERS = 16
REQUEST_TIMEOUT_S = 60.0
BACKLOG_BYTES = 1024 * 1024  # a follower that lets more pile up is dropped


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb answers. `stream`: called once the answer is on its way, to send events until the connection ends."""

    result: Mapping[str, Any]
    stream: Callable[[Outlet], Awaitable[None]] | None = None


class Outlet(Protocol):
    """Where a streaming verb sends its events."""

    def send(self, event: Mapping[str, Any]) -> bool:
        """Queue one event without waiting; False once the client is gone or was dropped for being too slow."""

    async def closed(self) -> None:
        """Return when the client is gone."""

    async def drain(self) -> None:
        """Wait until the client has taken what is queued."""


Handler = Callable[[str, Mapping[str, Any], Peer], Awaitable[Answer]]


class _Seats:
    """Room for so many at once, of whom so many may be others than root."""

    def __init__(self, count: int, members: int) -> None:
        self._count = count
        self._members = members
        self._taken = 0
        self._taken_by_members = 0

    @contextlib.contextmanager
    def take(self, peer: Peer) -> Iterator[int]:
        """Take a seat; yields 0, or how many there are if none is left."""
        member = not peer.is_root
        self._taken += 1
        self._taken_by_members += member
        try:
            if member and self._taken_by_members > self._members:
                yield self._members
            else:
                yield self._count if self._taken > self._count else 0
        finally:
            self._taken -= 1
            self._taken_by_members -= member


class ControlServer:
    """Serves a listening socket. `dropped_followers` counts those that read too slowly."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._for_root_alone = True
        self._clients = _Seats(CLIENTS, MEMBERS)
        self._followers = _Seats(FOLLOWERS, FOLLOWING_MEMBERS)
        self.dropped_followers = 0

    async def start(self, listener: socket.socket, *, for_root_alone: bool = True) -> None:
        """Serve `listener`, which is closed with the server, to root, or else to whoever its mode lets connect."""
        self._for_root_alone = for_root_alone
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=LINE_BYTES)

    async def close(self) -> None:
        """Stop listening and hang up on every client."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(self, reader, writer, peer_of(writer.get_extra_info("socket")))
        try:
            with self._clients.take(client.peer) as most:
                refusal = self._refusal(client.peer, most)
                if refusal is not None:
                    await client.answer(error_data(refusal))
                    return
                await self._converse(reader, client)
        except (ConnectionError, TimeoutError):
            return
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, client: _Client) -> None:
        while await self._request(reader, client):
            await client.drain()

    def _refusal(self, peer: Peer, most: int) -> CgnetdError | None:
        if self._for_root_alone and not peer.is_root:
            return PrivilegeError(f"use the control socket: only root may, you are user {peer.uid}")
        if most:
            return CgnetdError(f"use the control socket: {most} clients are connected already, accepted are no more")
        return None

    async def _request(self, reader: asyncio.StreamReader, client: _Client) -> bool:
        """Answer one request; False when the connection is over."""
        try:
            line = await asyncio.wait_for(reader.readline(), REQUEST_TIMEOUT_S)
        except ValueError:
            await client.answer(error_data(UsageError(f"read request: longer than {LINE_BYTES} bytes")))
            return False
        if not line:
            return False
        try:
            verb, args = parse_request(line)
        except UsageError as error:
            await client.answer(error_data(error))
            return False
        return await self._perform(verb, args, client)

    async def _perform(self, verb: str, args: Mapping[str, Any], client: _Client) -> bool:
        try:
            answer = await self._handler(verb, args, client.peer)
        except CgnetdError as error:
            await client.answer(error_data(error))
            return True
        except Exception as error:  # a fault of ours must be seen by the one who asked, and must not end the daemon
            await client.answer(error_data(CgnetdError(f"perform {verb}: {type(error).__name__}: {error}")))
            return True
        if answer.stream is None:
            await client.answer({"ok": True, "result": answer.result})
            return True
        with self._followers.take(client.peer) as most:
            if most:
                text = f"perform {verb}: {most} clients follow events already, accepted are no more"
                await client.answer(error_data(CgnetdError(text)))
                return True
            await client.answer({"ok": True, "result": answer.result})
            await answer.stream(client)
        return False


class _Client:
    """One connection's sending end."""

    def __init__(
        self, server: ControlServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> None:
        self.peer = peer
        self._server = server
        self._reader = reader
        self._writer = writer
        self._dropped = False

    async def answer(self, data: Mapping[str, Any]) -> None:
        self._writer.write(_line(data))
        await self._writer.drain()

    def send(self, event: Mapping[str, Any]) -> bool:
        transport = self._writer.transport
        if self._dropped or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > BACKLOG_BYTES:
            self._dropped = True
            self._server.dropped_followers += 1
            transport.abort()
            return False
        self._writer.write(_line({"event": event}))
        return True

    async def closed(self) -> None:
        # A client that hangs up is seen by reading only; what it sends meanwhile means nothing.
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(LINE_BYTES):
                pass

    async def drain(self) -> None:
        await self._writer.drain()


def parse_request(line: bytes) -> tuple[str, Mapping[str, Any]]:
    """The verb and its arguments. Raises UsageError saying what a request looks like."""
    accepted = 'accepted is one line of JSON: {"verb": "status", "args": {}}'
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"read request: {error}; {accepted}") from None
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str) or request.keys() - {"verb", "args"}:
        raise UsageError(f"read request: not an object of verb and args; {accepted}")
    args = request.get("args", {})
    if not isinstance(args, dict):
        raise UsageError(f"read request: args is not an object; {accepted}")
    return request["verb"], args


def error_data(error: CgnetdError) -> dict[str, Any]:
    """The answer that carries an error."""
    return {
        "ok": False,
        "error": {
            "kind": _kind(error),
            "exit_code": error.exit_code,
            "message": str(error),
            "problems": [problem_data(problem) for problem in error.problems] if isinstance(error, PolicyError) else [],
        },
    }


def problem_data(problem: Problem) -> dict[str, Any]:
    """A problem as JSON."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
    }


def _kind(error: CgnetdError) -> str:
    kinds = {
        PolicyError: "policy",
        SettingsError: "settings",
        PrivilegeError: "privilege",
        UsageError: "usage",
        KernelError: "kernel",
    }
    return next((kind for type_, kind in kinds.items() if isinstance(error, type_)), "internal")


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"
