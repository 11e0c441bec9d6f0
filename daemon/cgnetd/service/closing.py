# SPDX-License-Identifier: Apache-2.0
"""Closing the flows that were redirected to a backend, in every network namespace that somebody lives in.

Must not know why a backend is left.
"""

from __future__ import annotations

import ipaddress
import socket

from cgnetd.kernel.destroy import close_flows
from cgnetd.kernel.features import Features
from cgnetd.kernel.store import Store
from cgnetd.service.health import Place
from cgnetd.service.namespaces import network_namespaces
from cgnetd.service.session import object_dir

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


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
