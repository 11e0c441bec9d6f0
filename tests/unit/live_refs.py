# SPDX-License-Identifier: Apache-2.0
"""Services as the live tables know them, made by hand. Must not know what a test does with them."""

from __future__ import annotations

from collections.abc import Sequence

from cgnetd.datapath import abi
from cgnetd.datapath.live import BackendRef, FamilyRef, HealthRef, Live, ServiceRef

HEALTH = HealthRef(interval_ns=2 * 10**9, timeout_ns=5 * 10**8, fall=2, rise=3)


def backend(address: str, port: int = 80, weight: int = 1, probe_port: int = 80) -> BackendRef:
    return BackendRef(address, port, weight, probe_port)


def service(
    name: str,
    *backends: BackendRef,
    health: HealthRef | None = HEALTH,
    close_tcp: bool = False,
    key: int = 0,
    first_cell: int = 0,
) -> ServiceRef:
    """One of IPv4 backends, the cells of which begin at `first_cell`."""
    family = FamilyRef(tuple(backends), first_cell, first_cell + abi.CHOICES)
    return ServiceRef(name, key or sum(name.encode()), 111, close_tcp, health, family, None)


def live(*services: ServiceRef, devices: Sequence[str] = (), sources: Sequence[str] = ()) -> Live:
    return Live(tuple(devices), tuple(sources), tuple(services))
