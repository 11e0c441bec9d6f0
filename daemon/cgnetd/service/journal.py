# SPDX-License-Identifier: Apache-2.0
"""The only file that talks to journald: records as journal entries, by its native protocol.

The socket is non-blocking, so that a journald that hangs cannot hold the daemon; what it does not take is counted.
Must not know where records come from.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from cgnetd.service.events import FlowEvent, Record

SOCKET_PATH = "/run/systemd/journal/socket"
_SEND_BUFFER_BYTES = 8 * 1024 * 1024
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournalSink:
    """Writes records to the journal. `dropped` counts those that it did not take."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.dropped = 0

    def write(self, records: Sequence[Record]) -> None:
        """Send each record; never raises and never blocks."""
        for record in records:
            try:
                self._send(encode(fields_of(record)))
            except OSError:
                self.dropped += 1

    def _send(self, entry: bytes) -> None:
        """One entry, by path each time: a restarted journald has a new socket there."""
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_as_file(entry)

    def _send_as_file(self, entry: bytes) -> None:
        """An entry that no datagram holds: journald takes a sealed file in its place."""
        fd = os.memfd_create("cgnetd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(entry)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            self._socket.sendmsg([], rights, 0, self._path)
        finally:
            os.close(fd)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self._socket.close()


def fields_of(record: Record) -> dict[str, str]:
    """The fields of the journal entry for a record."""
    fields = {
        "MESSAGE": record.sentence(),
        "MESSAGE_ID": record.kind.message_id,
        "PRIORITY": str(int(record.kind.priority)),
        "SYSLOG_IDENTIFIER": "cgnetd",
    }
    for name, value in record.to_json().items():
        if name not in ("time", "message") and value not in ("", None) and (value or name != "new_port"):
            fields[f"CGNETD_{name.upper()}"] = _text(value)
    if isinstance(record, FlowEvent):
        fields |= _object_fields(record)
    return fields


def encode(fields: dict[str, str]) -> bytes:
    """One datagram of journald's native protocol; a value with a newline is length-prefixed."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "surrogateescape")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def _object_fields(event: FlowEvent) -> dict[str, str]:
    """What makes `journalctl -u UNIT` show the event beside the unit's own messages."""
    found = {
        "OBJECT_PID": str(event.pid) if event.pid else "",
        "OBJECT_SYSTEMD_UNIT": event.unit,
        "OBJECT_SYSTEMD_USER_UNIT": event.user_unit,
    }
    return {name: value for name, value in found.items() if value}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
