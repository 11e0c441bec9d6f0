# SPDX-License-Identifier: Apache-2.0
"""What `cgnetctl status` shows of services, devices and source addresses. Must not change anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgnetd.datapath.live import Live, ServiceRef
from cgnetd.service.backends import is_alive
from cgnetd.service.clock import rfc3339
from cgnetd.service.consequences import Now
from cgnetd.service.health import Board, Place, places
from cgnetd.service.live import LiveTables
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.waiting import missing
from cgnetd.service.words import errno_name


def live_status(reconciler: Reconciler) -> dict[str, Any]:
    """`services`, `devices`, `sources`, `waiting` and `views` of the generation in force. KernelError."""
    running = reconciler.running
    live = running.index.live if running is not None else Live()
    tables = reconciler.live
    shares = reconciler.shares()
    return {
        "services": [_service(service, live, tables.board, shares) for service in live.services],
        "devices": _devices(live, tables),
        "sources": _sources(live, tables),
        "waiting": [*missing(live, tables.host).texts, *tables.unprobed_texts],
        "views": reconciler.views,
    }


def _service(
    service: ServiceRef, live: Live, board: Board, shares: Mapping[tuple[str, int, int], float]
) -> dict[str, Any]:
    found = [place for place in places(live) if place.service.name == service.name]
    return {
        "name": service.name,
        "alive": sum(is_alive(place, board) for place in found),
        "errno": errno_name(service.errno),
        "probed": service.health is not None,
        "backends": [
            _backend(place, board, shares.get((service.name, place.family, place.index), 0.0)) for place in found
        ],
    }


def _backend(place: Place, board: Board, share: float) -> dict[str, Any]:
    """`share`: the part of the family's new calls that it gets; `error`: of the last probe."""
    pulse = board.pulse(place.target) if place.target is not None else None
    return {
        "address": place.backend.address,
        "port": place.backend.port,
        "weight": place.backend.weight,
        "alive": is_alive(place, board),
        "since": rfc3339(pulse.since_ns) if pulse is not None and pulse.since_ns else "",
        "error": pulse.error if pulse is not None else "",
        "share": round(share, 4),
    }


def _devices(live: Live, tables: LiveTables) -> list[dict[str, Any]]:
    indexes = tables.host.devices()
    return [{"name": name, "index": indexes.get(name, 0), "present": name in indexes} for name in live.devices]


def _sources(live: Live, tables: LiveTables) -> list[dict[str, Any]]:
    present = tables.host.present(live.sources)
    return [{"address": address, "present": address in present} for address in live.sources]


def now_of(reconciler: Reconciler) -> Now:
    """What is alive and present for the generation in force. KernelError."""
    running = reconciler.running
    live = running.index.live if running is not None else Live()
    tables = reconciler.live
    alive: dict[tuple[str, int], list[int]] = {}
    for place in places(live):
        if is_alive(place, tables.board):
            alive.setdefault((place.service.name, place.family), []).append(place.index)
    return Now(alive, reconciler.shares(), frozenset(tables.host.devices()), tables.host.present(live.sources))
