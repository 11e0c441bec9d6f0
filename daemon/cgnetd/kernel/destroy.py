# SPDX-License-Identifier: Apache-2.0
"""Ends the flows that were sent to one backend of a service. Must not know why it is to be left.

By bpf_sock_destroy in an iterator over all sockets where the kernel has it, otherwise by sock_diag. Both end exactly
the sockets that a redirect connected to that backend: what the programs noted with the socket says so, and the socket
is still connected there. Unconnected UDP sockets are never touched: their next datagram goes elsewhere.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cgnetd.errors import KernelError
from cgnetd.kernel import layout
from cgnetd.kernel.diag import SockDiag
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.features import Features
from cgnetd.kernel.maps import PREFIX
from cgnetd.kernel.netns import OWN, cookie, each
from cgnetd.kernel.peers import Peer, peers
from cgnetd.kernel.programs import use_maps
from cgnetd.kernel.store import Store
from pybpf import Link, Map, Object

_DOOMED = PREFIX + "doomed"
_ITERATORS: dict[int, str] = {socket.IPPROTO_TCP: "iter_tcp", socket.IPPROTO_UDP: "iter_udp"}
_FIRST = bytes(4)
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Doom:
    """Flows of one service to one backend. `family` is 4 or 6, `address` a host-order integer."""

    family: int
    address: int
    port: int  # 0: any
    service_key: int
    protocol: int  # IPPROTO_TCP or IPPROTO_UDP


def close_flows(
    store: Store,
    object_dir: Path,
    features: Features,
    *,
    family: int,
    address: int,
    port: int,
    service_key: int,
    protocol: int,
    netns: Iterable[Path] = (OWN,),
) -> int:
    """End the flows to a backend in these network namespaces (as /proc/PID/ns/net). Returns how many sockets that were.

    `family` is 4 or 6, `address` a host-order integer, `protocol` IPPROTO_TCP or IPPROTO_UDP; an IPv6 socket with an
    IPv4-mapped peer is of family 4. Port 0 stands for every port of the backend. A namespace that is gone is passed
    over. About 20 ms, and 3 ms a namespace: the thread waits. KernelError, PrivilegeError; ValueError for another
    protocol or family.
    """
    doom = Doom(family, address, port, service_key, protocol)
    if protocol not in _ITERATORS or family not in (layout.FAMILY_V4, layout.FAMILY_V6) or not service_key:
        raise ValueError(f"no such flows: {doom}")
    places = tuple(netns)
    try:
        if not features.sock_destroy:
            return _by_diag(store, object_dir, doom, places)
        each_port = (doom,) if port else _of_each_port(store, object_dir, doom)
        return sum(_by_iterator(store, object_dir, one, places) for one in each_port)
    except OSError as error:
        raise kernel_error(f"close flows to port {port} of a backend", error) from error


def _of_each_port(store: Store, object_dir: Path, doom: Doom) -> tuple[Doom, ...]:
    """The same with the ports that there are flows to: the iterators look for one."""
    ports = {peer.connected[1] for peer in peers(store, object_dir) if _is_doomed(peer, doom)}
    return tuple(replace(doom, port=port) for port in sorted(ports))


def _by_iterator(store: Store, object_dir: Path, doom: Doom, netns: Iterable[Path]) -> int:
    path = object_dir / "destroy.bpf.o"
    if not path.is_file():
        raise KernelError(f"close flows: {path} is missing; build it: make bpf")
    with Object(path) as opened:
        name = _ITERATORS[doom.protocol]
        for other, defined in opened.programs.items():
            defined.set_autoload(other == name)
        use_maps(opened, path, store)
        opened.load()
        with opened.maps[_DOOMED].open() as doomed, opened.programs[name].open() as program:
            doomed.update(_FIRST, _packed(doom))
            with Link.attach_iterator(program) as link:
                for _ in each(netns, link.iterate):
                    pass
            return _destroyed(doomed)


def _packed(doom: Doom) -> bytes:
    words = (doom.address >> 64, doom.address & _WORD)
    return layout.DOOM.pack(doom.service_key, *words, doom.port, doom.family, 0)


def _destroyed(doomed: Map) -> int:
    return int(layout.DOOM.unpack(doomed.lookup(_FIRST) or bytes(layout.DOOM.size))[layout.DOOM_DESTROYED])


def _by_diag(store: Store, object_dir: Path, doom: Doom, netns: Iterable[Path]) -> int:
    """What is kept with UDP sockets is not shown by sock_diag: which ones are meant, a program tells."""
    doomed = tuple(peer for peer in peers(store, object_dir) if _is_doomed(peer, doom))
    return sum(each(netns, lambda: _end_here(doomed))) if doomed else 0


def _end_here(doomed: Iterable[Peer]) -> int:
    """Those in the calling thread's network namespace."""
    here = cookie()
    with SockDiag() as diag:
        return sum(diag.destroy(peer.family, peer.protocol, peer.identity) for peer in doomed if peer.netns == here)


def _is_doomed(peer: Peer, doom: Doom) -> bool:
    """Whether the socket was redirected to the backend, and is connected to it now."""
    address, port = peer.noted
    return (
        (peer.service_key, peer.protocol, peer.noted_family) == (doom.service_key, doom.protocol, doom.family)
        and (address, doom.port or port) == (doom.address, port)
        and peer.connected == peer.noted
    )
