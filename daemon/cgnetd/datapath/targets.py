# SPDX-License-Identifier: Apache-2.0
"""Where a call goes that a rule of an image rewrites: an address and port, a backend, a name.

The counterpart of bpf/target.bpf.h and bpf/service.bpf.h. Must not know of chains or verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.classify import Call, Classifier
from cgnetd.datapath.reader import CorruptImageError

Choose = Callable[[int, int], int | None]  # (service id, family) -> number of a backend of that family, None: all dead


def first_backend(service_id: int, family: int) -> int | None:
    """The first one, as if it were alive."""
    del service_id, family
    return 0


class Target(NamedTuple):
    """The call as it goes on. `errno`: instead of going on it fails, for want of a backend. `moved`: to an address
    that the rule gives, not only to another port."""

    call: Call
    errno: int = 0
    moved: bool = False


class TargetReader(Classifier):
    """The effects and services of an image. CorruptImageError where it cannot be right."""

    def effect(self, rule_id: int) -> int:
        """Where the effect of a rule stands."""
        effects = abi.lo(self.cell(abi.IMAGE_EFFECTS))
        at = abi.lo(self.cell(effects + rule_id)) if effects and rule_id < self.rule_count else 0
        if not at:
            raise CorruptImageError(f"read image: rule {rule_id} has no effect")
        return at

    def target(self, rule_id: int, call: Call, choose: Choose) -> Target:
        """Where a rule that rewrites sends a call."""
        at = self.effect(rule_id)
        head = self.cell(at + abi.EFFECT_FLAGS)
        if call.direction == abi.DIR_UNIX:
            if not abi.hi(head) & abi.EFFECT_UNIX:
                raise CorruptImageError(f"read image: rule {rule_id} leads to no name")
            return Target(replace(call, name=self._name(at)), moved=True)
        if abi.hi(head) & abi.EFFECT_SERVICE:
            return self._backend(abi.lo(head), call, choose)
        wanted = abi.EFFECT_TO4 if call.family == abi.FAMILY_V4 else abi.EFFECT_TO6
        moved = bool(abi.hi(head) & wanted)
        if call.direction == abi.DIR_EGRESS and not moved:
            raise CorruptImageError(f"read image: rule {rule_id} leads nowhere")
        address, port = self._address(at, call.family)
        there = replace(call, address=address if moved else call.address, port=port or call.port)
        return Target(there, moved=moved)

    def _address(self, effect: int, family: int) -> tuple[int, int]:
        if family == abi.FAMILY_V4:
            cell = self.cell(effect + abi.EFFECT_TO_V4)
            return abi.hi(cell), abi.lo(cell) & 0xFFFF
        high, low, port = (self.cell(effect + abi.EFFECT_TO_V6 + i) for i in range(3))
        return high << 64 | low, abi.lo(port) & 0xFFFF

    def _name(self, effect: int) -> bytes:
        length = abi.lo(self.cell(effect + abi.EFFECT_NAME))
        if not 0 < length <= abi.UNIX_NAME_MAX:
            raise CorruptImageError(f"read image: a name of {length} bytes")
        cells = range(effect + abi.EFFECT_NAME + 1, effect + abi.EFFECT_CELLS)
        return b"".join(self.cell(cell).to_bytes(8, abi.BYTE_ORDER) for cell in cells)[:length]

    def _backend(self, service_id: int, call: Call, choose: Choose) -> Target:
        services = self.cell(abi.IMAGE_SERVICES)
        if service_id >= abi.lo(services):
            raise CorruptImageError(f"read image: there is no service {service_id}")
        record = abi.hi(services) + service_id * abi.SERVICE_CELLS
        errno = abi.lo(self.cell(record + abi.SERVICE_FLAGS))
        if not 0 < errno < 256:
            raise CorruptImageError(f"read image: service {service_id} has the errno {errno}")
        place = self.cell(record + (abi.SERVICE_V4 if call.family == abi.FAMILY_V4 else abi.SERVICE_V6))
        chosen = choose(service_id, call.family) if abi.lo(place) else None
        if chosen is None or chosen >= abi.lo(place):
            return Target(call, errno)
        at = abi.hi(place) + chosen * abi.BACKEND_CELLS
        high, low = (self.cell(at + abi.BACKEND_ADDRESS + i) for i in range(2))
        port = abi.lo(self.cell(at + abi.BACKEND_PORT)) & 0xFFFF
        return Target(replace(call, address=high << 64 | low, port=port or call.port), moved=True)
