# SPDX-License-Identifier: Apache-2.0
"""Closing the flows that were redirected to a backend, in every network namespace that somebody lives in.

Must not know why a backend is left, nor which process it is done by.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cgnetd.errors import CgnetdError
from cgnetd.kernel.destroy import Doom, close_flows
from cgnetd.kernel.features import Features
from cgnetd.kernel.peers import peers
from cgnetd.kernel.store import Store
from cgnetd.service.health import Place
from cgnetd.service.namespaces import network_namespaces
from cgnetd.service.session import object_dir

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


@dataclass(frozen=True, slots=True)
class Held:
    """Flows that there were when somebody looked: (protocol, service key, family, address) and the same with a port."""

    flows: frozenset[tuple[int, ...]]

    def any(self, place: Place, protocol: str) -> bool:
        """Whether some of `protocol` went to a backend."""
        doom = doom_of(place, protocol)
        key = (doom.protocol, doom.service_key, doom.family, doom.address)
        return (*key, doom.port) in self.flows if doom.port else key in self.flows


def held_flows(store: Store) -> Held:
    """All flows to backends, in every network namespace. KernelError."""
    found: set[tuple[int, ...]] = set()
    for peer in peers(store, object_dir()):
        address, port = peer.noted
        key = (peer.protocol, peer.service_key, peer.noted_family, address)
        found |= {key, (*key, port)}
    return Held(frozenset(found))


def doom_of(place: Place, protocol: str) -> Doom:
    """The flows of `protocol` ("udp": connected sockets, or "tcp") to a backend."""
    address = int(ipaddress.ip_address(place.backend.address))
    return Doom(place.family, address, place.backend.port, place.service.key, _PROTOCOLS[protocol])


def close_backend_flows(store: Store, features: Features, place: Place, protocol: str) -> int:
    """How many flows of `protocol` to a backend were closed. KernelError, PrivilegeError."""
    (closed,) = close_all(store, features, [doom_of(place, protocol)])
    if isinstance(closed, CgnetdError):
        raise closed
    return closed


def close_all(store: Store, features: Features, dooms: Sequence[Doom]) -> list[int | CgnetdError]:
    """How many flows of each were closed, or why they could not be."""
    namespaces = network_namespaces()
    found: list[int | CgnetdError] = []
    for doom in dooms:
        try:
            found.append(close_flows(store, object_dir(), features, **asdict(doom), netns=namespaces))
        except CgnetdError as error:
            found.append(error)
    return found
