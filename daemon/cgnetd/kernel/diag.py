# SPDX-License-Identifier: Apache-2.0
"""Sockets of the caller's network namespace by sock_diag(7), with what a storage map keeps for them, and their end.

Must not know what is in the storage. Written by hand: pyroute2 0.7 can neither ask for storage nor read it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_ERROR, _DONE = 2, 3
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300
_NESTED = 0x8000
_KIND_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_SOCKET = struct.Struct("=BBBBI48s")  # struct inet_diag_req_v2: family, protocol, extensions, pad, states, id
_ID = struct.Struct("!HH16s16s")  # the beginning of struct inet_diag_sockid: ports and addresses, source first
_ID_OFFSET, _ID_BYTES, _MESSAGE_BYTES = 4, 48, 72  # in and of struct inet_diag_msg
_ATTRIBUTE = struct.Struct("=HH")
_ANY_STATE = 0xFFFFFFFF

# Attributes: of the request, of the answer, and nested in each other
_ASK_STORAGES, _ASK_MAP = 2, 1  # INET_DIAG_REQ_SK_BPF_STORAGES, SK_DIAG_BPF_STORAGE_REQ_MAP_FD
_STORAGES, _STORAGE, _VALUE = 20, 1, 3  # INET_DIAG_SK_BPF_STORAGES, SK_DIAG_BPF_STORAGE, .._MAP_VALUE

_ANSWER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Found:
    """A socket. `peer`: 4 or 16 bytes by its own family; `id` names it to the kernel."""

    family: int  # AF_INET or AF_INET6
    protocol: int
    peer: bytes
    peer_port: int
    id: bytes
    storage: bytes


class SockDiag:
    """A channel to sock_diag, in the network namespace of the thread that makes it. Needs closing."""

    def __init__(self) -> None:
        self._channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)

    def with_storage(self, family: int, protocol: int, map_fd: int) -> tuple[Found, ...]:
        """The sockets that have an entry in a socket storage map. OSError ENOENT: the kernel cannot tell of them."""
        wanted = _attribute(_ASK_STORAGES | _NESTED, _attribute(_ASK_MAP, struct.pack("=I", map_fd)))
        request = _SOCKET.pack(family, protocol, 0, 0, _ANY_STATE, bytes(_ID_BYTES)) + wanted
        self._send(_BY_FAMILY, _REQUEST | _DUMP, request)
        found = (_found(protocol, body) for body in self._answers())
        return tuple(one for one in found if one)

    def destroy(self, found: Found) -> bool:
        """End it: whoever has it gets ECONNABORTED. False if it is not there any more. OSError EOPNOTSUPP, EPERM."""
        self._send(
            _DESTROY,
            _REQUEST | _ACKNOWLEDGE,
            _SOCKET.pack(found.family, found.protocol, 0, 0, _ANY_STATE, found.id),
        )
        try:
            for _ in self._answers():
                pass
        except FileNotFoundError:
            return False
        return True

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._channel.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)

    def _answers(self) -> Iterator[bytes]:
        """Bodies of the messages until the last one. OSError if that tells of a failure."""
        while True:
            data = self._channel.recv(_ANSWER_BYTES)
            position = 0
            while position < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, position)
                body = data[position + _HEADER.size : position + length]
                if kind in (_ERROR, _DONE):
                    _check(body)
                    return
                yield body
                position += _aligned(length)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> SockDiag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check(body: bytes) -> None:
    number = -struct.unpack_from("=i", body)[0]
    if number:
        raise OSError(number, f"sock_diag: {os.strerror(number)}")


def _found(protocol: int, body: bytes) -> Found | None:
    """None for a socket without storage."""
    storage = _inside(body[_MESSAGE_BYTES:], _STORAGES, _STORAGE, _VALUE)
    if storage is None:
        return None
    identity = body[_ID_OFFSET : _ID_OFFSET + _ID_BYTES]
    _, peer_port, _, peer = _ID.unpack_from(identity)
    family = body[0]
    return Found(family, protocol, peer[:4] if family == socket.AF_INET else peer, peer_port, identity, storage)


def _inside(data: bytes, *path: int) -> bytes | None:
    """The payload of an attribute in attributes."""
    for wanted in path:
        inner = next((payload for kind, payload in _attributes(data) if kind == wanted), None)
        if inner is None:
            return None
        data = inner
    return data


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            raise OSError(errno.EBADMSG, "sock_diag: an attribute without end")
        yield kind & _KIND_MASK, data[position + _ATTRIBUTE.size : position + length]
        position += _aligned(length)


def _attribute(kind: int, payload: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
