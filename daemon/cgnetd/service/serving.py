# SPDX-License-Identifier: Apache-2.0
"""A worker as a process: it serves the one connection that it was started for, root's only, and ends with it.

Must not know policies, nor what its visitor wants.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from systemd.daemon import listen_fds

from cgnetd.errors import CgnetdError, PrivilegeError
from cgnetd.service import worker

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(name: str, serve: Serve) -> int:
    """Serve the connection that the service manager passes. CgnetdError if there is none or what it says is nonsense,
    PrivilegeError if it is not root's."""
    inherited = listen_fds()
    if len(inherited) != 1:
        raise CgnetdError(f"start worker {name}: cgnetd-{name}.socket starts it, with a connection")
    with socket.socket(fileno=inherited[0]) as connection:
        if worker.is_foreign(connection):
            raise PrivilegeError(f"serve as worker {name}: whoever connected is not root")
        try:
            asyncio.run(_serve(name, connection, serve))
        except ConnectionError:
            pass  # it has gone, and wants nothing any more
        except ValueError as error:
            raise CgnetdError(f"serve as worker {name}: what was said cannot be understood: {error}") from error
    return 0


async def _serve(name: str, connection: socket.socket, serve: Serve) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=worker.LINE_BYTES)
    try:
        writer.write(worker.greeting(name))
        await serve(reader, writer)
        await writer.drain()
    finally:
        writer.close()
