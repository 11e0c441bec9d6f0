# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel's MPTCP for another subflow of a connection, as a path manager in user space does.

The kernel binds and connects that subflow's socket itself, in the course of the request. Needs CAP_NET_ADMIN and
`net.mptcp.pm_type=1` in the network namespace before the connection is made. Must not know policies.
"""

from __future__ import annotations

import os
import socket
import struct

MPTCP = 262
SOL_MPTCP, MPTCP_INFO = 284, 1
_TOKEN = struct.Struct("=I")
_TOKEN_AT = 12  # mptcpi_token in struct mptcp_info
_NETLINK_GENERIC = 16
_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
_SUBFLOW_CREATE = 10
_ATTR_ADDR, _ATTR_TOKEN, _ATTR_ADDR_REMOTE = 1, 4, 6
_ADDR_FAMILY, _ADDR_ID, _ADDR_ADDR4, _ADDR_ADDR6, _ADDR_PORT = 1, 2, 3, 4, 5
_NLM_F_REQUEST, _NLM_F_ACK, _NLA_F_NESTED = 1, 4, 1 << 15
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")


def create_subflow(connection: socket.socket, local: str, remote: tuple[str, int]) -> int:
    """Connect one more subflow from `local` to `remote`: 0, or the errno that the kernel got."""
    (token,) = _TOKEN.unpack_from(connection.getsockopt(SOL_MPTCP, MPTCP_INFO, 64), _TOKEN_AT)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as netlink:
        asked = _attribute(_CTRL_ATTR_FAMILY_NAME, b"mptcp_pm\0")
        family = _family_id(_exchange(netlink, _GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, asked))
        body = _attribute(_ATTR_TOKEN, _TOKEN.pack(token))
        body += _attribute(_ATTR_ADDR | _NLA_F_NESTED, _place(local, None))
        body += _attribute(_ATTR_ADDR_REMOTE | _NLA_F_NESTED, _place(*remote))
        answer = _exchange(netlink, family, _SUBFLOW_CREATE, body, _NLM_F_ACK)
    return -int(struct.unpack_from("=i", answer)[0])


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _place(host: str, port: int | None) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = _ADDR_ADDR6 if family == socket.AF_INET6 else _ADDR_ADDR4
    place = _attribute(_ADDR_FAMILY, struct.pack("=H", family)) + _attribute(kind, socket.inet_pton(family, host))
    return (
        place + _attribute(_ADDR_ID, b"\x07")
        if port is None
        else place + _attribute(_ADDR_PORT, struct.pack("=H", port))
    )


def _family_id(payload: bytes) -> int:
    at = 4  # behind the generic header
    while at < len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        if kind == _CTRL_ATTR_FAMILY_ID:
            return int(struct.unpack_from("=H", payload, at + 4)[0])
        at += length + -length % 4
    raise OSError("the kernel has no mptcp_pm")


def _exchange(netlink: socket.socket, kind: int, command: int, body: bytes, flags: int = 0) -> bytes:
    """The payload of the answer. OSError if asking for data fails."""
    payload = struct.pack("=BBH", command, 1, 0) + body
    netlink.send(_HEADER.pack(_HEADER.size + len(payload), kind, _NLM_F_REQUEST | flags, 1, 0) + payload)
    answer = netlink.recv(1 << 16)
    length, answered, _, _, _ = _HEADER.unpack_from(answer)
    payload = answer[_HEADER.size : length]
    if answered == _NLMSG_ERROR and not flags & _NLM_F_ACK:
        number = -int(struct.unpack_from("=i", payload)[0])
        raise OSError(number, os.strerror(number))
    return payload
