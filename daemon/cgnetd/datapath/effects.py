# SPDX-License-Identifier: Apache-2.0
"""Effects: what an allowing or rewriting rule does to a call, as cells; equal ones are kept once.

Must not know how rules match, or which live cell holds what.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.record import address_text
from cgnetd.datapath.services import HALF
from cgnetd.policy.types import Endpoint, LocalAddresses, Redirect, Rewrite, Rule, SocketOptions


class Numbers(NamedTuple):
    """Live cells of source addresses and devices, and ids of services, by their names."""

    sources: Mapping[str, int]
    devices: Mapping[str, int]
    services: Mapping[str, int]


class Effects:
    """The effects of one image. `cells` are their part of it, from offset 0."""

    def __init__(self, numbers: Numbers) -> None:
        self.cells = array("Q")
        self._numbers = numbers
        self._by_content: dict[tuple[int, ...], int] = {}

    def add(self, rule: Rule) -> int:
        """Where in `cells` the effect of a rule stands."""
        content = tuple(self._effect(rule))
        known = self._by_content.get(content)
        if known is None:
            known = self._by_content[content] = len(self.cells)
            self.cells.extend(content)
        return known

    def _effect(self, rule: Rule) -> list[int]:
        effect = [0] * abi.EFFECT_CELLS
        if rule.redirect is not None:
            self._redirect(effect, rule.redirect)
        if rule.rewrite is not None:
            _rewrite(effect, rule.rewrite)
        if rule.source is not None:
            self._source(effect, rule.source)
        if rule.options is not None:
            self._options(effect, rule.options)
        if rule.privileged:
            _flag(effect, abi.EFFECT_PRIVILEGED)
        return effect

    def _redirect(self, effect: list[int], redirect: Redirect) -> None:
        if redirect.name is not None:
            _name(effect, redirect.name)
        elif redirect.service is not None:
            _flag(effect, abi.EFFECT_SERVICE)
            effect[abi.EFFECT_FLAGS] |= self._numbers.services[redirect.service.name]
        else:
            for target in (redirect.v4, redirect.v6):
                if target is not None:
                    _target(effect, target)

    def _source(self, effect: list[int], source: LocalAddresses) -> None:
        if source.v4 is not None:
            _flag(effect, abi.EFFECT_SOURCE4)
            effect[abi.EFFECT_SOURCE_V4] = abi.cell(source.v4, self._numbers.sources[address_text(4, source.v4)])
        if source.v6 is not None:
            _flag(effect, abi.EFFECT_SOURCE6)
            live = self._numbers.sources[address_text(6, source.v6)]
            effect[abi.EFFECT_SOURCE_V6 : abi.EFFECT_SOURCE_V6 + 3] = [source.v6 >> 64, source.v6 & HALF, live]

    def _options(self, effect: list[int], options: SocketOptions) -> None:
        if options.mark is not None:
            _flag(effect, abi.EFFECT_MARK)
        if options.priority is not None:
            _flag(effect, abi.EFFECT_PRIORITY)
        effect[abi.EFFECT_OPTIONS] = abi.cell(options.mark or 0, options.priority or 0)
        if options.device is not None:
            _flag(effect, abi.EFFECT_DEVICE)
            effect[abi.EFFECT_LINK] = self._numbers.devices[options.device]


def _rewrite(effect: list[int], rewrite: Rewrite) -> None:
    """A port without an address counts for both families."""
    port, addresses = rewrite.port or 0, rewrite.addresses
    effect[abi.EFFECT_TO_V4] = effect[abi.EFFECT_TO_V6 + 2] = port
    for family in (4, 6):
        address = addresses.of(family)
        if address is not None:
            _target(effect, Endpoint(family, address, port))


def _target(effect: list[int], target: Endpoint) -> None:
    if target.family == 4:
        _flag(effect, abi.EFFECT_TO4)
        effect[abi.EFFECT_TO_V4] = abi.cell(target.address, target.port)
    else:
        _flag(effect, abi.EFFECT_TO6)
        parts = [target.address >> 64, target.address & HALF, target.port]
        effect[abi.EFFECT_TO_V6 : abi.EFFECT_TO_V6 + 3] = parts


def _name(effect: list[int], name: bytes) -> None:
    if len(name) > abi.UNIX_NAME_MAX:
        raise ValueError(f"compile redirect: the name {name!r} has more than {abi.UNIX_NAME_MAX} bytes")
    _flag(effect, abi.EFFECT_UNIX)
    effect[abi.EFFECT_NAME] = abi.cell(0, len(name))
    effect[abi.EFFECT_NAME + 1 :] = array("Q", name.ljust(abi.UNIX_NAME_BYTES, b"\0"))


def _flag(effect: list[int], flag: int) -> None:
    effect[abi.EFFECT_FLAGS] |= abi.cell(flag, 0)
