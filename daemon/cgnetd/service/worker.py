# SPDX-License-Identifier: Apache-2.0
"""Workers: other processes that do for the daemon what it has no right to do. How they are reached, and the lines that
are spoken: one JSON object each, a greeting with the version first.

Must not know what any worker does.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cgnetd import __version__
from cgnetd.errors import CgnetdError
from cgnetd.service.peer import peer_of

WORKERS_VARIABLE = "CGNETD_WORKERS"  # where their sockets are; not set: the daemon does their work itself
PROBER = "prober"
SOCKETS = "sockets"
NAMES = (PROBER, SOCKETS)

GREETING_S = 10.0  # in which a worker has to be there: the service manager starts it when somebody connects
LINE_BYTES = 16 * 1024 * 1024

Fields = dict[str, Any]


class WorkerError(CgnetdError):
    """A worker that is not there, says nothing, or says what nobody can understand."""


def path_of(name: str) -> Path | None:
    """The socket of a worker; None: the daemon does its work itself."""
    directory = os.environ.get(WORKERS_VARIABLE)
    return Path(directory) / f"{name}.sock" if directory else None


def pack(fields: Fields) -> bytes:
    """One line."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def unpack(line: bytes) -> Fields:
    """What a line says. ValueError if that is no whole JSON object."""
    if not line.endswith(b"\n"):
        raise ValueError("the line has no end")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("the line is no JSON object")
    return found


def greeting(name: str) -> bytes:
    """What a worker says first."""
    return pack({"worker": name, "version": __version__})


def is_foreign(connection: socket.socket) -> bool:
    """Whether the other end is not root's: nobody else has anything to say here."""
    return not peer_of(connection).is_root


@dataclass(slots=True)
class Channel:
    """The daemon's end of a connection to a worker that has greeted. Needs closing."""

    name: str
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, name: str, path: Path, timeout_s: float = GREETING_S) -> Self:
        """WorkerError if nobody greets in time, or another version does."""
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
        except OSError as error:
            raise WorkerError(f"reach worker {name} at {path}: {error.strerror or error}") from error
        made = cls(name, reader, writer)
        try:
            if is_foreign(writer.get_extra_info("socket")):
                raise WorkerError(f"reach worker {name} at {path}: the socket is not root's")
            _check(name, await made.receive(timeout_s))
        except BaseException:
            made.close()
            raise
        return made

    def send(self, fields: Fields) -> None:
        self._writer.write(pack(fields))

    async def receive(self, timeout_s: float) -> Fields:
        """The next line. WorkerError if there is none in time, or none that can be understood."""
        try:
            return unpack(await asyncio.wait_for(self._reader.readline(), timeout_s))
        except TimeoutError:
            raise WorkerError(f"hear worker {self.name}: nothing within {timeout_s:.0f} s") from None
        except (OSError, ValueError) as error:
            ended = isinstance(error, ConnectionError) or self._reader.at_eof()
            raise WorkerError(f"hear worker {self.name}: {'it has ended' if ended else error}") from error

    def close(self) -> None:
        self._writer.close()


def ask(name: str, path: Path, question: Fields, timeout_s: float) -> Fields:
    """One question and its answer, waited for: for what cannot be decided without it. WorkerError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as made:
            made.settimeout(timeout_s)
            made.connect(os.fspath(path))
            if is_foreign(made):
                raise WorkerError(f"ask worker {name} at {path}: the socket is not root's")
            with made.makefile("rwb") as stream:
                _check(name, unpack(stream.readline(LINE_BYTES)))
                stream.write(pack(question))
                stream.flush()
                return unpack(stream.readline(LINE_BYTES))
    except (OSError, ValueError) as error:
        raise WorkerError(f"ask worker {name} at {path}: {error}") from error


def _check(name: str, said: Fields) -> None:
    if said.get("worker") != name or said.get("version") != __version__:
        other = f"{said.get('worker')!s:.40} of version {said.get('version')!s:.40}"
        raise WorkerError(f"reach worker {name}: {other} answers, this is version {__version__}")
