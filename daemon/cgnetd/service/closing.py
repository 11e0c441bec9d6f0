# SPDX-License-Identifier: Apache-2.0
"""Closing the flows that were redirected to a backend, in every network namespace that somebody lives in.

Must not know why a backend is left.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from cgnetd.kernel.destroy import close_flows
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
        backend = place.backend
        key = (_PROTOCOLS[protocol], place.service.key, place.family, int(ipaddress.ip_address(backend.address)))
        return (*key, backend.port) in self.flows if backend.port else key in self.flows


def held_flows(store: Store) -> Held:
    """All flows to backends, in every network namespace. KernelError."""
    found: set[tuple[int, ...]] = set()
    for peer in peers(store, object_dir()):
        address, port = peer.noted
        key = (peer.protocol, peer.service_key, peer.noted_family, address)
        found |= {key, (*key, port)}
    return Held(frozenset(found))


def close_backend_flows(store: Store, features: Features, place: Place, protocol: str) -> int:
    """How many flows of `protocol` ("udp": connected sockets, or "tcp") were closed. KernelError."""
    return close_flows(
        store,
        object_dir(),
        features,
        family=place.family,
        address=int(ipaddress.ip_address(place.backend.address)),
        port=place.backend.port,
        service_key=place.service.key,
        protocol=_PROTOCOLS[protocol],
        netns=network_namespaces(),
    )
