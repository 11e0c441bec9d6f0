# SPDX-License-Identifier: Apache-2.0
"""The client's end of the control socket: one request, one answer, then for followed verbs one event a line.

Must not know what the verbs mean. The daemon's end, and the limits on lines and clients, are in `service.control`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

from cgnetd.cli.problems import DaemonError, problem_of
from cgnetd.errors import CgnetdError, NotRunningError, PrivilegeError

CONNECT_TIMEOUT_S = 5.0
LINE_MAX = 64 << 20  # bytes of one answer; a status of thousands of policies stays far below


def call(socket_path: str, verb: str, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the daemon at `socket_path` and return its result. Waits as long as the daemon takes.

    Raises NotRunningError when nobody answers there, PrivilegeError when not let in, DaemonError for the daemon's own.
    """
    with _conversation(socket_path, verb, args) as (result, _):
        return result


def follow(socket_path: str, verb: str, args: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Like `call`, then every event until the daemon ends the stream. The connection closes with the iterator."""
    with _conversation(socket_path, verb, args) as (_, reader):
        for line in reader:
            message = _decode(line, socket_path)
            if "event" in message:
                yield message["event"]


@contextmanager
def _conversation(
    socket_path: str, verb: str, args: Mapping[str, Any] | None
) -> Iterator[tuple[dict[str, Any], BufferedReader]]:
    with _connect(socket_path) as connection, connection.makefile("rb") as reader:
        request = {"verb": verb, "args": dict(args or {})}
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = reader.readline(LINE_MAX)
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        yield _result(_decode(line, socket_path)), reader


def _connect(socket_path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(CONNECT_TIMEOUT_S)
        connection.connect(socket_path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError, TimeoutError, BlockingIOError) as error:
        connection.close()
        raise NotRunningError(
            f"reach cgnetd at {socket_path}: nobody answers ({error.strerror or 'timed out'}); "
            "start cgnetd, or name its socket with --control-socket"
        ) from error
    except PermissionError as error:
        connection.close()
        raise PrivilegeError(
            f"reach cgnetd at {socket_path}: permission denied; run this as root, or as a "
            "member of the group that the daemon lets in (control_group)"
        ) from error
    except OSError as error:
        connection.close()
        raise NotRunningError(
            f"reach cgnetd at {socket_path}: {error}; name its socket with --control-socket"
        ) from error
    connection.settimeout(None)
    return connection


def _decode(line: bytes, socket_path: str) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise NotRunningError(f"reach cgnetd at {socket_path}: it hung up before it had answered; see its log")
    try:
        message = json.loads(line)
    except ValueError as error:
        raise CgnetdError(f"reach cgnetd at {socket_path}: what answers there is not cgnetd: {error}") from error
    if not isinstance(message, dict):
        raise CgnetdError(f"reach cgnetd at {socket_path}: what answers there is not cgnetd")
    return message


def _result(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("ok"):
        result = message.get("result")
        return result if isinstance(result, dict) else {}
    error = message.get("error") or {}
    problems = tuple(problem_of(problem) for problem in error.get("problems") or ())
    text = "\n".join(str(p) for p in problems) or str(error.get("message") or "the daemon failed without saying why")
    raise DaemonError(text, int(error.get("exit_code") or 1), problems)
