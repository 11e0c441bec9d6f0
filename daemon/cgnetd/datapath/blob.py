# SPDX-License-Identifier: Apache-2.0
"""One policy compiled: tables that answer for any call in a few look-ups, wherever in an image they end up.

Nothing in a blob depends on other policies, on the policy's place among them, its tier or its mode, so it can be kept
while the policy's rules stay the same. Must not know of images.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.addresses import V4, V6, Family, Pieces, sweep, table_cells
from cgnetd.datapath.budget import DEFAULT_LIMIT_CELLS, Budget
from cgnetd.datapath.opaque import opaque_references
from cgnetd.datapath.ports import PortLists
from cgnetd.datapath.rows import BIND_CONTEXTS, EGRESS_CONTEXTS, Rows
from cgnetd.datapath.rules import default_rules, has_bind, has_egress
from cgnetd.policy.types import Action, AddressRanges, Policy, Range


@dataclass(frozen=True, slots=True)
class BlobSizes:
    """`cells` of 8 bytes; `entries`: those of all address tables."""

    cells: int
    rows: int
    port_lists: int
    entries: int


@dataclass(frozen=True, slots=True, eq=False)
class PolicyBlob:
    """`cells` with offsets from the blob's start; `header`: the policy header's cells, 0 where the image fills in."""

    cells: array[int]
    header: tuple[int, ...]
    rules: int  # rule ids that the policy takes
    fingerprint: bytes  # equal where `cells` are
    sizes: BlobSizes


class _Section(NamedTuple):
    direction: int
    flag: int
    rows: Rows


def compile_policy(policy: Policy, limit_cells: int = DEFAULT_LIMIT_CELLS) -> PolicyBlob:
    """Compile one policy. PolicyError naming it if it needs more than `limit_cells` cells, or as many steps."""
    budget = Budget(policy.name, policy.where, limit_cells)
    lists = PortLists(budget)
    egress, bind = _default_references(policy)
    sections = []
    if has_egress(policy):
        rows = Rows(policy.egress, EGRESS_CONTEXTS, lists, budget, first_reference=abi.REF_RULE, fallback=egress)
        sections.append(_Section(abi.DIR_EGRESS, abi.POLICY_EGRESS, rows))
    if has_bind(policy):
        first = abi.REF_RULE + len(policy.egress)
        rows = Rows(policy.bind, BIND_CONTEXTS, lists, budget, first_reference=first, fallback=bind)
        sections.append(_Section(abi.DIR_BIND, abi.POLICY_BIND, rows))
    header = [0] * abi.POLICY_CELLS
    header[abi.POLICY_DEFAULTS] = abi.cell(egress, bind)
    header[abi.POLICY_OPAQUE : abi.POLICY_OPAQUE + abi.OPAQUE_COUNT] = opaque_references(policy.egress, egress)
    cells, entries = _assemble(sections, lists, header, budget)
    sizes = BlobSizes(len(cells), sum(section.rows.count for section in sections), lists.count, entries)
    rule_count = len(policy.egress) + len(policy.bind) + len(default_rules(policy))
    return PolicyBlob(cells, tuple(header), rule_count, hashlib.sha256(cells).digest(), sizes)


def _assemble(
    sections: Sequence[_Section], lists: PortLists, header: list[int], budget: Budget
) -> tuple[array[int], int]:
    """The blob's cells and the number of table entries; writes their places into the header.

    Port lists come first, because rows hold their offsets; then each section's rows and tables.
    """
    swept = [(section, [(family, _sweep(family, section.rows, budget)) for family in (V4, V6)]) for section in sections]
    cells, entries = array("Q", lists.cells), 0
    for section, tables in swept:
        header[abi.POLICY_FLAGS] |= abi.cell(section.flag, 0)
        header[abi.POLICY_ROWS + section.direction] = abi.cell(len(cells), section.rows.count)
        cells.extend(section.rows.cells)
        for family, pieces in tables:
            table, bits = table_cells(family, pieces, len(cells))
            budget.spend_cells(len(table))
            first_cell = abi.POLICY_V4 if family is V4 else abi.POLICY_V6
            header[first_cell + section.direction] = abi.cell(len(cells), bits)
            entries += len(pieces.starts)
            cells.extend(table)
    return cells, entries


def _sweep(family: Family, rows: Rows, budget: Budget) -> Pieces:
    groups = [_ranges(family, addresses) for addresses in rows.addresses]
    return sweep(family, groups, rows.always(), rows.add, budget)


def _ranges(family: Family, addresses: AddressRanges | None) -> tuple[Range, ...]:
    """The ranges that cut the line; none for a group that is everywhere."""
    if addresses is None:
        return ()
    return addresses.v4 if family is V4 else addresses.v6


def _default_references(policy: Policy) -> tuple[int, int]:
    """References of default.egress and default.bind: rules behind the policy's own ones, or "nothing decided"."""
    following = abi.REF_RULE + len(policy.egress) + len(policy.bind)
    egress = bind = abi.REF_NONE
    if policy.default_egress is not Action.PASS:
        egress, following = following, following + 1
    if policy.default_bind is not Action.PASS:
        bind = following
    return egress, bind
