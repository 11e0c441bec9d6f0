# SPDX-License-Identifier: Apache-2.0
"""The rules of a set that do more than judge: the live cells they need, and their effects and services in an image.

Must not know how rules match.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from cgnetd.datapath import abi
from cgnetd.datapath.effects import Effects, Numbers
from cgnetd.datapath.live import Live
from cgnetd.datapath.record import address_text
from cgnetd.datapath.refs import RuleRefs
from cgnetd.datapath.rules import rules_of
from cgnetd.datapath.services import service_cells, service_refs
from cgnetd.policy.types import Policy, Rule, Service


class Acting:
    """What rules do to calls, of one image. `refs`: of all rules by id, the built-in ones first."""

    def __init__(self, policies: Sequence[Policy], refs: RuleRefs, services: Sequence[Service]) -> None:
        rules = _by_id(policies, refs.acting())
        self.live = _live(rules.values(), services)
        self._services = services
        self._rule_count = len(refs)
        self._effects = Effects(_numbers(self.live))
        self._at = {rule_id: self._effects.add(rule) for rule_id, rule in rules.items()}

    @property
    def effects(self) -> int:
        """How many distinct effects there are."""
        return len(self._effects.cells) // abi.EFFECT_CELLS

    def place(self, cells: array[int]) -> None:
        """Put effects and services behind the cells of an image, and their places into its header."""
        if self._at:
            index_at = len(cells)
            effects_at = index_at + self._rule_count
            index = array("Q", bytes(8 * self._rule_count))
            for rule_id, at in self._at.items():
                index[rule_id] = abi.cell(0, effects_at + at)
            cells.extend(index)
            cells.extend(self._effects.cells)
            cells[abi.IMAGE_EFFECTS] = abi.cell(0, index_at)
        if self._services:
            cells[abi.IMAGE_SERVICES] = abi.cell(len(cells), len(self._services))
            cells.extend(service_cells(self._services, self.live.services, len(cells)))


def _by_id(policies: Sequence[Policy], wanted: Sequence[int]) -> dict[int, Rule]:
    """The rules with these ids (ascending)."""
    if not wanted:
        return {}
    ids = set(wanted)
    numbered = enumerate((rule for policy in policies for rule in rules_of(policy)), abi.RULE_FIRST)
    return {rule_id: rule for rule_id, rule in numbered if rule_id in ids}


def _live(rules: Iterable[Rule], services: Sequence[Service]) -> Live:
    sources: set[tuple[int, int]] = set()
    devices: set[str] = set()
    for rule in rules:
        if rule.source is not None:
            found = [(family, rule.source.of(family)) for family in (4, 6)]
            sources |= {(family, address) for family, address in found if address is not None}
        if rule.options is not None and rule.options.device is not None:
            devices.add(rule.options.device)
    texts = tuple(address_text(*source) for source in sorted(sources))
    return Live(tuple(sorted(devices)), texts, service_refs(services, len(devices) + len(texts)))


def _numbers(live: Live) -> Numbers:
    return Numbers(
        sources={text: live.source_cell(number) for number, text in enumerate(live.sources)},
        devices={name: live.device_cell(number) for number, name in enumerate(live.devices)},
        services={service.name: number for number, service in enumerate(live.services)},
    )
