# SPDX-License-Identifier: Apache-2.0
"""The only file that talks to journald: records as journal entries, by its native protocol.

The socket is non-blocking, so that a journald that hangs cannot hold the daemon. What it does not take now is kept, as
far as there is room, and sent in order when it takes entries again. Must not know where records come from.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from cgnetd.service.advice import explain_command
from cgnetd.service.events import FlowEvent, Record

SOCKET_PATH = "/run/systemd/journal/socket"
_SEND_BUFFER_BYTES = 8 * 1024 * 1024
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_KEPT_MAX = 4000  # entries: sent at once, they must not meet journald's rate limit
_KEPT_BYTES = 8 * 1024 * 1024
_BEHIND = 1000
# Its queue is full, or it does not run (yet, or just now).
_LATER = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ECONNREFUSED, errno.ENOENT, errno.ECONNRESET)
_INITIAL_PIDS = 0xEFFFFFFC  # inode of the first pid namespace (include/linux/proc_ns.h)


class JournalSink:
    """Writes records to the journal. `dropped` counts those that it will never have."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._tells_pids = _has_initial_pids()
        self.dropped = 0

    def write(self, records: Sequence[Record]) -> None:
        """Send or keep each record; never raises and never blocks."""
        for record in records:
            entry = encode(fields_of(record, pids=self._tells_pids))
            self.flush()
            if self._kept and (len(self._kept) >= _KEPT_MAX or self._kept_bytes + len(entry) > _KEPT_BYTES):
                self.dropped += 1
                continue
            self._kept.append(entry)
            self._kept_bytes += len(entry)
        self.flush()

    def flush(self) -> None:
        """Send what was kept, oldest first, until it is not taken."""
        while self._kept:
            try:
                self._send(self._kept[0])
            except OSError as error:
                if error.errno in _LATER:
                    return
                self.dropped += 1
            self._kept_bytes -= len(self._kept.popleft())

    @property
    def kept(self) -> int:
        """Entries that wait for journald."""
        return len(self._kept)

    @property
    def behind(self) -> bool:
        """Whether so many wait that fewer should come."""
        return len(self._kept) > _BEHIND

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

    def close(self) -> None:
        self._socket.close()


def fields_of(record: Record, *, pids: bool = True) -> dict[str, str]:
    """The fields of the journal entry for a record. `pids`: journald knows processes by the numbers in records."""
    fields = {
        "MESSAGE": record.sentence(),
        "MESSAGE_ID": record.kind.message_id,
        "PRIORITY": str(int(record.kind.priority)),
        "SYSLOG_IDENTIFIER": "cgnetd",
    }
    for name, value in record.to_json().items():
        if name != "message" and value not in ("", None) and (value or name != "new_port"):
            fields[f"CGNETD_{name.upper()}"] = _text(value)
    if isinstance(record, FlowEvent):
        fields |= {"CGNETD_EXPLAIN": explain_command(record)} | _object_fields(record, pids)
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


def _object_fields(event: FlowEvent, pids: bool) -> dict[str, str]:
    """What makes `journalctl -u UNIT` show the event beside the unit's own messages.

    The units are those of the event's cgroup: journald finds none for a process that has ended. To OBJECT_PID it adds
    what it finds out about a process that still runs.
    """
    found = {
        "OBJECT_PID": str(event.pid) if event.pid and pids else "",
        "OBJECT_SYSTEMD_UNIT": event.unit,
        "OBJECT_SYSTEMD_USER_UNIT": event.user_unit,
    }
    return {name: value for name, value in found.items() if value}


def _has_initial_pids() -> bool:
    """Whether this process numbers processes as the kernel does; another one's number would lead to a wrong process."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PIDS
    except OSError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
