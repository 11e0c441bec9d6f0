# SPDX-License-Identifier: Apache-2.0
"""Checked Service documents to services, and what can only be said of all services together: loops.

Must not know of rules.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence

from ..errors import Problem
from .document import Document
from .endpoints import endpoint_text
from .scalars import shown
from .service_models import HealthPart, ServiceDocument
from .types import Backend, Endpoint, Health, Protocol, Service, Where

_ERRNOS = {"ECONNREFUSED": errno.ECONNREFUSED, "EHOSTUNREACH": errno.EHOSTUNREACH}


def build_service(document: Document, read: ServiceDocument) -> Service:
    spec = read.spec
    backends = [Backend(part.endpoint, part.weight) for part in spec.backends]
    backends.sort(key=lambda backend: (backend.endpoint.family, backend.endpoint.address, backend.endpoint.port))
    ports = {(Protocol(part.protocol), part.port) for part in spec.ports}
    return Service(
        name=read.metadata.name,
        addresses=tuple(sorted(spec.addresses)),
        ports=tuple(sorted(ports, key=lambda found: (found[0].value, found[1]))),
        backends=tuple(backends),
        where=Where(document.file, *document.place(())),
        sticky_ns=spec.sticky_for if spec.balance == "sticky" else 0,
        health=_health(spec.health) if spec.health else None,
        errno=_ERRNOS[spec.errno],
        close_tcp=spec.on_backend_down == "close",
    )


def _health(part: HealthPart) -> Health:
    return Health(part.interval, part.timeout, part.fall, part.rise, part.port)


def loops(documents: Sequence[tuple[Document, ServiceDocument]], services: Mapping[str, Service]) -> Iterator[Problem]:
    """A problem for each backend that is a virtual address itself."""
    virtual = {
        (family, address, protocol, port): service.name
        for service in services.values()
        for family, address in service.addresses
        for protocol, port in service.ports
    }
    for document, read in documents:
        service = services[read.metadata.name]
        for index, part in enumerate(read.spec.backends):
            found = _virtual_behind(part.endpoint, service, virtual)
            if found:
                text = f'{endpoint_text(part.endpoint)} is an address of service "{shown(found)}" itself: a loop'
                yield document.problem(("spec", "backends", index, "address"), text)


def _virtual_behind(
    backend: Endpoint, service: Service, virtual: Mapping[tuple[int, int, Protocol, int], str]
) -> str | None:
    """The service that has the backend for a virtual address, with a port that calls to `service` reach it by."""
    reached = ((protocol, backend.port or port) for protocol, port in service.ports)
    found = (virtual.get((backend.family, backend.address, protocol, port)) for protocol, port in reached)
    return next((name for name in found if name), None)
