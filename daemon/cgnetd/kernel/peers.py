# SPDX-License-Identifier: Apache-2.0
"""Which sockets hold views of redirected peers, in every network namespace. Must not know what is done about them."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgnetd.errors import KernelError
from cgnetd.kernel import layout
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.programs import use_maps
from cgnetd.kernel.store import Store
from pybpf import Link, Object

OBJECT = "peers.bpf.o"

_PROGRAM = "iter_peers"
_MAP = "peers"
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Peer:
    """One socket. `noted` is where the last connect() was redirected to, `connected` what it is connected to now (port
    0: nothing): address as a host-order integer and port, an IPv4-mapped address as IPv4."""

    netns: int  # cookie
    family: int  # AF_INET, AF_INET6
    protocol: int  # IPPROTO_*
    service_key: int  # 0: not by a service
    noted_family: int  # 4, 6; 0: nothing is noted
    noted: tuple[int, int]
    connected: tuple[int, int]
    identity: bytes  # struct inet_diag_sockid: names the socket in its namespace, and no later one


def peers(store: Store, object_dir: Path) -> tuple[Peer, ...]:
    """All of them; their number is what it costs. KernelError, PrivilegeError."""
    path = object_dir / OBJECT
    if not path.is_file():
        raise KernelError(f"look for redirected sockets: {path} is missing; build it: make bpf")
    try:
        with Object(path) as opened:
            use_maps(opened, path, store)
            opened.load()
            with (
                opened.programs[_PROGRAM].open() as program,
                Link.attach_iterator(program, store.maps[_MAP]) as link,
            ):
                written = link.iterate()
    except OSError as error:
        raise kernel_error("look for redirected sockets", error) from error
    return tuple(_peer(fields) for fields in layout.PEER_RECORD.iter_unpack(written))


def _peer(fields: tuple[Any, ...]) -> Peer:
    netns, cookie, view, local, peer, local_port, peer_port, device, family, protocol = fields
    _, _, high, low, service_key, _, noted_port, noted_family = layout.VIEW.unpack(view)
    ends = local_port + peer_port + local + peer
    return Peer(
        netns,
        family,
        protocol,
        service_key,
        noted_family,
        (high << 64 | low, noted_port),
        (_address(family, peer), int.from_bytes(peer_port, "big")),
        ends + struct.pack("=III", device, cookie & 0xFFFFFFFF, cookie >> 32),
    )


def _address(family: int, raw: bytes) -> int:
    if family == socket.AF_INET:
        return int.from_bytes(raw[:4], "big")
    return int.from_bytes(raw.removeprefix(_MAPPED), "big")
