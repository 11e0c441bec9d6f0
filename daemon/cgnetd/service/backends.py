# SPDX-License-Identifier: Apache-2.0
"""What follows when a backend dies, comes back, or is no longer one: flows to it are closed, and the world is told.

Must not know how backends are probed, nor what the live tables hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from cgnetd.datapath.live import Live, ServiceRef
from cgnetd.errors import CgnetdError
from cgnetd.service.events import Kind, Message
from cgnetd.service.health import Board, Place, Target, places
from cgnetd.service.report import counted, message
from cgnetd.service.words import endpoint_text, errno_name

Close = Callable[[Place, str], int]  # closes the flows of a protocol, "udp" or "tcp", to a backend; how many there were


class Backends:
    """Closes flows by `close` (which may raise CgnetdError) and makes messages."""

    def __init__(self, close: Close) -> None:
        self._close = close

    def changed(self, live: Live, board: Board, target: Target, later: Collection[Target] = ()) -> list[Message]:
        """A target died or came back; the live tables know already. `later`: others that will be told of then."""
        found = [place for place in places(live) if place.target == target]
        pulse = board.pulse(target)
        if pulse.alive:
            return [_up(place) for place in found]
        told = [self._down(place, pulse.error) for place in found]
        services = {place.service.name: place.service for place in found}
        for place in places(live):
            if place.target in later:
                services.pop(place.service.name, None)
        return told + [_no_backend(service) for service in services.values() if not any_alive(service, live, board)]

    def removed(self, before: Live, now: Live) -> list[Message]:
        """Another generation came into force: what some service no longer has as a backend keeps no flows."""
        kept = {_identity(place) for place in places(now)}
        gone = [place for place in places(before) if _identity(place) not in kept]
        return [told for place in gone if (told := self._gone(place)) is not None]

    def _down(self, place: Place, error: str) -> Message:
        closed, trouble = self._close_flows(place)
        flows = f", {_flows(closed)} closed" if any(closed.values()) else ""
        text = f"{_name(place)} is dead: {error}{flows}{trouble}"
        return message(Kind.BACKEND_DOWN, text, **_fields(place), error=error, closed=closed)

    def _gone(self, place: Place) -> Message | None:
        """None if there is nothing to tell."""
        closed, trouble = self._close_flows(place)
        if not any(closed.values()) and not trouble:
            return None
        text = f"{_name(place)} was removed, {_flows(closed)} closed{trouble}"
        return message(Kind.FLOWS_CLOSED, text, **_fields(place), closed=closed)

    def _close_flows(self, place: Place) -> tuple[dict[str, int], str]:
        """How many were closed by protocol, and what went wrong, in words."""
        closed: dict[str, int] = {}
        for protocol in ("udp", "tcp") if place.service.close_tcp else ("udp",):
            try:
                closed[protocol] = self._close(place, protocol)
            except CgnetdError as error:
                return closed, f"; its {protocol} flows could not be closed: {error}"
        return closed, ""


def any_alive(service: ServiceRef, live: Live, board: Board) -> bool:
    """Whether some backend of a service answers."""
    return any(is_alive(place, board) for place in places(live) if place.service.name == service.name)


def is_alive(place: Place, board: Board) -> bool:
    """A backend that is not probed is alive."""
    return place.target is None or board.pulse(place.target).alive


def backend_text(place: Place) -> str:
    """ "10.0.0.11:5432"; without the port if calls keep theirs."""
    return endpoint_text(place.backend.address, place.backend.port) if place.backend.port else place.backend.address


def _up(place: Place) -> Message:
    return message(Kind.BACKEND_UP, f"{_name(place)} is alive", **_fields(place))


def _no_backend(service: ServiceRef) -> Message:
    errno = errno_name(service.errno)
    text = f"no backend of service {service.name} is alive: calls get {errno}"
    return message(Kind.SERVICE_DOWN, text, service=service.name, errno=errno)


def _name(place: Place) -> str:
    return f"backend {backend_text(place)} of service {place.service.name}"


def _fields(place: Place) -> dict[str, Any]:
    backend = place.backend
    return {"service": place.service.name, "address": backend.address, "port": backend.port}


def _identity(place: Place) -> tuple[str, str, int]:
    return place.service.name, place.backend.address, place.backend.port


def _flows(closed: dict[str, int]) -> str:
    parts = [counted(number, f"{name.upper()} flow", f"{name.upper()} flows") for name, number in closed.items()]
    return " and ".join(parts) if parts else "no flows"
