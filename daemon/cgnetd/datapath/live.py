# SPDX-License-Identifier: Apache-2.0
"""The live cells of a generation: which cell tells what, and what they hold for a state of the host.

Order: the index of each device, whether each source address is there, then by service and family the choices and the
states of the backends. Must not know how the state of the host is found out, or where the cells are kept.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

from cgnetd.datapath import abi

Alive = Callable[[str, int, int], bool]  # (name of the service, family, index of the backend)


class BackendRef(NamedTuple):
    """A backend as it is probed. `port` 0: that of the call; `probe_port` 0: it is not probed."""

    address: str
    port: int
    weight: int
    probe_port: int


class FamilyRef(NamedTuple):
    """The backends of one family of a service, and the first live cells of their choices and of their states."""

    backends: tuple[BackendRef, ...]
    choices: int
    states: int


class HealthRef(NamedTuple):
    """How backends are probed; `fall` and `rise` count probes in a row."""

    interval_ns: int
    timeout_ns: int
    fall: int
    rise: int


class ServiceRef(NamedTuple):
    """A service; its id is its place in `Live.services`. `errno`: of a call that finds no backend alive."""

    name: str
    key: int  # abi.SERVICE_KEY
    errno: int
    close_tcp: bool
    health: HealthRef | None
    v4: FamilyRef | None
    v6: FamilyRef | None

    def families(self) -> tuple[tuple[int, FamilyRef], ...]:
        """(4 or 6, the backends) of each family that has some."""
        return tuple((family, ref) for family, ref in ((4, self.v4), (6, self.v6)) if ref is not None)


class Live(NamedTuple):
    """`devices`: names of network devices. `sources`: local addresses that rules give to flows, as text."""

    devices: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    services: tuple[ServiceRef, ...] = ()

    @property
    def size(self) -> int:
        """How many cells the table has."""
        fixed = len(self.devices) + len(self.sources)
        return fixed + sum(cells_of(len(ref.backends)) for service in self.services for _, ref in service.families())

    def device_cell(self, number: int) -> int:
        """The cell with the index of a device, 0 in it: there is no such device."""
        return number

    def source_cell(self, number: int) -> int:
        """The cell that is 1 if the host has the address, else 0."""
        return len(self.devices) + number

    def cells(self, *, device_index: Mapping[str, int], present: Collection[str], alive: Alive) -> array[int]:
        """The whole table. `device_index` may leave out devices that are not there."""
        cells = array("Q", [device_index.get(name, 0) for name in self.devices])
        cells.extend([int(address in present) for address in self.sources])
        for service in self.services:
            for family, ref in service.families():
                states = [alive(service.name, family, number) for number in range(len(ref.backends))]
                cells.extend(choices([backend.weight for backend in ref.backends], states))
                cells.extend(map(int, states))
        return cells


def live_from(fields: Sequence[Any]) -> Live:
    """The `Live` whose fields JSON made lists of. TypeError or ValueError if they are none."""
    devices, sources, services = fields
    return Live(tuple(map(str, devices)), tuple(map(str, sources)), tuple(map(_service_from, services)))


def _service_from(fields: Sequence[Any]) -> ServiceRef:
    name, key, errno, close_tcp, health, v4, v6 = fields
    probes = None if health is None else HealthRef(*map(int, health))
    return ServiceRef(str(name), int(key), int(errno), bool(close_tcp), probes, _family_from(v4), _family_from(v6))


def _family_from(fields: Sequence[Any] | None) -> FamilyRef | None:
    if fields is None:
        return None
    backends, choices_at, states_at = fields
    return FamilyRef(tuple(_backend_from(*backend) for backend in backends), int(choices_at), int(states_at))


def _backend_from(address: Any, port: Any, weight: Any, probe_port: Any) -> BackendRef:
    return BackendRef(str(address), int(port), int(weight), int(probe_port))


def cells_of(backends: int) -> int:
    """Live cells that so many backends of one family take."""
    return abi.CHOICES + backends


def choices(weights: Sequence[int], alive: Sequence[bool]) -> array[int]:
    """abi.CHOICES cells, each the index of a backend that is alive plus 1, all 0 if none is.

    While all are alive the cells are in proportion to the weights but for rounding, and each has one at least. The
    cells of a dead one go to the others in about that proportion, and are its own again when it is back: no other cell
    ever changes. Equal arguments give equal cells, in every process.
    """
    if not any(alive):
        return array("Q", bytes(8 * abi.CHOICES))
    cells = array("Q")
    for owner, count in enumerate(_shares(weights)):
        taken = range(len(cells), len(cells) + count)
        cells.extend([owner + 1] * count if alive[owner] else [_heir(cell, weights, alive) + 1 for cell in taken])
    return cells


def _shares(weights: Sequence[int]) -> list[int]:
    """Cells of each while all are alive: one, and of the rest by largest remainder."""
    rest, total = abi.CHOICES - len(weights), sum(weights)
    parts = [divmod(rest * weight, total) for weight in weights]
    shares = [1 + whole for whole, _ in parts]
    most_left = sorted(range(len(weights)), key=lambda number: -parts[number][1])
    for number in most_left[: abi.CHOICES - sum(shares)]:
        shares[number] += 1
    return shares


def _heir(cell: int, weights: Sequence[int], alive: Sequence[bool]) -> int:
    """Who has the cell of a dead one: the first in an order that is the cell's own and does not know who is alive."""
    candidates = (number for number in range(len(weights)) if alive[number])
    return min(candidates, key=lambda number: _delays(number)[cell] / weights[number])


@lru_cache(maxsize=abi.BACKENDS_MAX)
def _delays(number: int) -> array[float]:
    """One exponential variate a cell: the least of them, divided by weights, falls on each in proportion to these."""
    source = Random(number)
    return array("d", [-math.log(1.0 - source.random()) for _ in range(abi.CHOICES)])
