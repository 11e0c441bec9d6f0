# SPDX-License-Identifier: Apache-2.0
"""Services: their records and backends as cells of an image, and what the live cells say of them.

Must not know which rules lead to a service, or which backends are alive.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from cgnetd.datapath import abi
from cgnetd.datapath.live import BackendRef, FamilyRef, HealthRef, ServiceRef, cells_of
from cgnetd.datapath.record import address_text
from cgnetd.policy.types import Backend, Protocol, Service

HALF = 0xFFFFFFFFFFFFFFFF


def service_refs(services: Sequence[Service], first_cell: int) -> tuple[ServiceRef, ...]:
    """What the live cells from `first_cell` on say of each service."""
    found = []
    for service in services:
        families: dict[int, FamilyRef] = {}
        for family in (4, 6):
            backends = _of_family(service, family)
            if backends:
                refs = tuple(_backend_ref(service, backend) for backend in backends)
                families[family] = FamilyRef(refs, first_cell, first_cell + abi.CHOICES)
                first_cell += cells_of(len(refs))
        found.append(_service_ref(service, families.get(4), families.get(6)))
    return tuple(found)


def service_cells(services: Sequence[Service], refs: Sequence[ServiceRef], base: int) -> array[int]:
    """The records, then the backends of each, as cells to stand at `base` of an image."""
    records, backends = array("Q"), array("Q")
    backends_at = base + len(services) * abi.SERVICE_CELLS
    for service, ref in zip(services, refs, strict=True):
        record = [0] * abi.SERVICE_CELLS
        record[abi.SERVICE_FLAGS] = abi.cell(0, service.errno)
        record[abi.SERVICE_KEY] = ref.key
        record[abi.SERVICE_STICKY_NS] = service.sticky_ns
        for family, live in ref.families():
            first = abi.SERVICE_V4 if family == 4 else abi.SERVICE_V6
            record[first] = abi.cell(backends_at + len(backends), len(live.backends))
            record[first + 1] = abi.cell(live.choices, live.states)
            for backend in _of_family(service, family):
                backends.extend(_backend_cells(backend))
        records.extend(record)
    return records + backends


def key_of(text: str) -> int:
    """A number that stands for a name in every generation: the first 8 bytes of its SHA-256, little endian, never 0."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "little") or 1


def _of_family(service: Service, family: int) -> list[Backend]:
    return [backend for backend in service.backends if backend.endpoint.family == family]


def _service_ref(service: Service, v4: FamilyRef | None, v6: FamilyRef | None) -> ServiceRef:
    health = service.health
    probes = None if health is None else HealthRef(health.interval_ns, health.timeout_ns, health.fall, health.rise)
    return ServiceRef(service.name, key_of(service.name), service.errno, service.close_tcp, probes, v4, v6)


def _backend_ref(service: Service, backend: Backend) -> BackendRef:
    endpoint = backend.endpoint
    text = address_text(endpoint.family, endpoint.address)
    return BackendRef(text, endpoint.port, backend.weight, _probe_port(service, endpoint.port))


def _probe_port(service: Service, backend_port: int) -> int:
    if service.health is None:
        return 0
    first_tcp = next((port for protocol, port in service.ports if protocol is Protocol.TCP), 0)
    return service.health.port or backend_port or first_tcp


def _backend_cells(backend: Backend) -> tuple[int, int, int, int]:
    endpoint = backend.endpoint
    key = key_of(f"{address_text(endpoint.family, endpoint.address)} {endpoint.port}")
    return endpoint.address >> 64, endpoint.address & HALF, endpoint.port, key
