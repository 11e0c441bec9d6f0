# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a UNIX socket, as the kernel tells it. Must not know what they may do."""

from __future__ import annotations

import socket
import struct
from array import array
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python's socket has no name for it
_GROUPS_BYTES = 4 * 65536  # as many as a process can have


@dataclass(frozen=True, slots=True)
class Peer:
    """As it was when it connected."""

    pid: int
    uid: int

    @property
    def is_root(self) -> bool:
        return self.uid == 0


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(data)
    return Peer(pid, uid)


def is_member(connection: socket.socket, gid: int) -> bool:
    """Whether the process that connected was in a group, be it its own or a supplementary one."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(data)[2] == gid:
        return True
    return gid in array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES))
