# SPDX-License-Identifier: Apache-2.0
"""What the policies in force wait for: devices and source addresses that the host lacks. Told once a change.

Must not know how the host is asked, nor when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from cgnetd.datapath.live import Live
from cgnetd.service.events import Kind, Message
from cgnetd.service.host import Host
from cgnetd.service.report import message


@dataclass(frozen=True, slots=True)
class Missing:
    """Names and addresses, sorted."""

    devices: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Each as `status` shows it."""
        return (
            *(f"waiting for device {name}" for name in self.devices),
            *(f"waiting for source address {address}" for address in self.sources),
        )


def missing(live: Live, host: Host) -> Missing:
    """What of a generation's devices and sources is not there."""
    devices, present = host.devices(), host.present(live.sources)
    return Missing(
        tuple(sorted(name for name in live.devices if not devices.get(name))),
        tuple(sorted(address for address in live.sources if address not in present)),
    )


@dataclass(slots=True)
class Watchman:
    """Turns what is missing into messages, each lack once for as long as it lasts."""

    _told: Missing = field(default_factory=Missing)

    def messages(self, live: Live, now: Missing) -> Iterator[Message]:
        """What is new. What is missing no longer is told only if the generation in force still speaks of it."""
        before, self._told = self._told, now
        for name in _only(now.devices, before.devices):
            text = f"device {name} does not exist: sockets that rules put on it are refused"
            yield message(Kind.DEVICE_MISSING, text, device=name)
        for address in _only(now.sources, before.sources):
            text = f"the host lacks source address {address}: calls that rules send from it are refused"
            yield message(Kind.SOURCE_MISSING, text, address=address)
        for name in _only(before.devices, now.devices):
            if name in live.devices:
                yield message(Kind.DEVICE_FOUND, f"device {name} exists now", device=name)
        for address in _only(before.sources, now.sources):
            if address in live.sources:
                yield message(Kind.SOURCE_FOUND, f"the host has source address {address} now", address=address)


def _only(some: Iterable[str], others: Collection[str]) -> list[str]:
    return [name for name in some if name not in others]
