# SPDX-License-Identifier: Apache-2.0
"""Ends sockets of the caller's network namespace by sock_diag(7). Must not know which ones, or why.

By hand: one message and its answer are less than what they would be in a library's clothes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from types import TracebackType
from typing import Self

_NETLINK_SOCK_DIAG = 4
_DESTROY = 21  # SOCK_DESTROY
_REQUEST_ACKNOWLEDGED = 0x1 | 0x4  # NLM_F_REQUEST | NLM_F_ACK
_ERROR = 2  # NLMSG_ERROR, which every acknowledgement is

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBBI48s")  # struct inet_diag_req_v2: family, protocol, extensions, pad, states, id
_ANY_STATE = 0xFFFFFFFF
_ANSWER_BYTES = 1 << 16


class SockDiag:
    """A channel to sock_diag, in the network namespace of the thread that makes it. Needs closing."""

    def __init__(self) -> None:
        self._channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)

    def destroy(self, family: int, protocol: int, identity: bytes) -> bool:
        """End one socket: whoever has it gets ECONNABORTED. False if it is not there any more.

        `family`: AF_INET or AF_INET6; `identity`: struct inet_diag_sockid. OSError EPERM without CAP_NET_ADMIN,
        EOPNOTSUPP where the kernel cannot (CONFIG_INET_DIAG_DESTROY, CONFIG_INET_UDP_DIAG).
        """
        body = _REQUEST.pack(family, protocol, 0, 0, _ANY_STATE, identity)
        self._channel.send(_HEADER.pack(_HEADER.size + len(body), _DESTROY, _REQUEST_ACKNOWLEDGED, 0, 0) + body)
        answer = self._channel.recv(_ANSWER_BYTES)
        if _HEADER.unpack_from(answer)[1] != _ERROR:
            raise OSError(errno.EBADMSG, "sock_diag: an answer to something else")
        number: int = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        if number not in (0, errno.ENOENT):
            raise OSError(number, f"sock_diag: {os.strerror(number)}")
        return number == 0

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
