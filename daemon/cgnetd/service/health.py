# SPDX-License-Identifier: Apache-2.0
"""Which backends are alive, by what probes told: falls and rises, kept for as long as somebody asks.

Pure but for the time it is told. Must not know how probes are made, nor what follows from a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from cgnetd.datapath.live import BackendRef, Live, ServiceRef


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What is probed and how. Backends of several services that agree in all of this share probes."""

    address: str
    port: int
    interval_ns: int
    timeout_ns: int
    fall: int  # failures in a row that kill
    rise: int  # successes in a row that revive


@dataclass(slots=True)
class Pulse:
    """What is known of a target. `since_ns`: since 1970, 0 if it never changed; `error`: of the last probe."""

    alive: bool = True
    since_ns: int = 0
    error: str = ""
    against: int = 0  # probes in a row that contradict `alive`


class Board:
    """The pulses of all targets. A target that is not followed any more is forgotten."""

    def __init__(self) -> None:
        self._pulses: dict[Target, Pulse] = {}

    def follow(self, targets: Iterable[Target], was_alive: Callable[[Target], bool] = lambda _: True) -> None:
        """From now on know these and no others. One that was known with other settings keeps its pulse; of the rest
        `was_alive` tells with what they begin."""
        before = {(target.address, target.port): pulse for target, pulse in self._pulses.items()}
        self._pulses = {
            target: self._pulses.get(target) or _successor(before.get((target.address, target.port)), target, was_alive)
            for target in sorted(set(targets))
        }

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(self._pulses)

    def pulse(self, target: Target) -> Pulse:
        """Of a target that is not followed: alive."""
        return self._pulses.get(target) or Pulse()

    def copy(self) -> Board:
        """What is known now, and stays so."""
        found = Board()
        found._pulses = {target: replace(pulse) for target, pulse in self._pulses.items()}
        return found

    def report(self, target: Target, error: str, now_ns: int) -> bool:
        """A probe ended, `error` "" if it succeeded. Whether the target died or came back by it."""
        pulse = self._pulses.get(target)
        if pulse is None:
            return False
        pulse.error = error
        pulse.against = pulse.against + 1 if pulse.alive == bool(error) else 0
        if pulse.against < (target.fall if pulse.alive else target.rise):
            return False
        pulse.alive, pulse.since_ns, pulse.against = not pulse.alive, now_ns, 0
        return True


def _successor(known: Pulse | None, target: Target, was_alive: Callable[[Target], bool]) -> Pulse:
    if known is None:
        return Pulse(was_alive(target))
    return Pulse(known.alive, known.since_ns, known.error)


@dataclass(frozen=True, slots=True)
class Place:
    """One backend of a service in the live table."""

    service: ServiceRef
    family: int  # 4 or 6
    index: int
    backend: BackendRef

    @property
    def target(self) -> Target | None:
        """What tells whether it is alive; None: nothing does, it always is."""
        health, port = self.service.health, self.backend.probe_port
        if health is None or not port:
            return None
        return Target(self.backend.address, port, health.interval_ns, health.timeout_ns, health.fall, health.rise)

    @property
    def state_cell(self) -> int:
        """Where the live table says whether it is alive."""
        return dict(self.service.families())[self.family].states + self.index


def places(live: Live) -> Iterator[Place]:
    """Every backend of every service."""
    for service in live.services:
        for number, family in service.families():
            for index, backend in enumerate(family.backends):
                yield Place(service, number, index, backend)


def targets(live: Live) -> set[Target]:
    """Everything that is to be probed while this is in force."""
    return {target for place in places(live) if (target := place.target) is not None}
