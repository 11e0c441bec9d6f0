# SPDX-License-Identifier: Apache-2.0
"""One policy compiled: tables that answer for any call in a few look-ups, wherever in an image they end up.

Nothing in a blob depends on other policies, on the policy's place among them, its tier or its mode, so it can be kept
while the policy's rules stay the same. Must not know of images.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from cgnetd.datapath import abi
from cgnetd.datapath.addresses import V4, V6, Family, Pieces, sweep, table_cells
from cgnetd.datapath.budget import DEFAULT_LIMIT_CELLS, Budget
from cgnetd.datapath.opaque import opaque_references
from cgnetd.datapath.ports import PortLists
from cgnetd.datapath.rows import BIND_CONTEXTS, EGRESS_CONTEXTS, Rows
from cgnetd.datapath.rules import has_bind, has_egress
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
    sizes: BlobSizes


@dataclass(slots=True)
class _Build:
    """What a policy's two sections write into."""

    budget: Budget
    lists: PortLists
    header: list[int]
    entries: int = 0


def compile_policy(policy: Policy, limit_cells: int = DEFAULT_LIMIT_CELLS) -> PolicyBlob:
    """Compile one policy. PolicyError naming it if it needs more than `limit_cells` cells, or as many steps."""
    budget = Budget(policy.name, policy.where, limit_cells)
    build = _Build(budget, PortLists(budget), [0] * abi.POLICY_CELLS)
    egress_default, bind_default = _default_references(policy)
    build.header[abi.POLICY_DEFAULTS] = abi.cell(egress_default, bind_default)
    opaque = opaque_references(policy.egress, egress_default)
    build.header[abi.POLICY_OPAQUE : abi.POLICY_OPAQUE + abi.OPAQUE_COUNT] = opaque
    sections = []
    if has_egress(policy):
        rows = Rows(
            policy.egress, EGRESS_CONTEXTS, build.lists, budget, first_reference=abi.REF_RULE, fallback=egress_default
        )
        sections.append((abi.DIR_EGRESS, abi.POLICY_EGRESS, rows))
    if has_bind(policy):
        first = abi.REF_RULE + len(policy.egress)
        sections.append(
            (
                abi.DIR_BIND,
                abi.POLICY_BIND,
                Rows(policy.bind, BIND_CONTEXTS, build.lists, budget, first_reference=first, fallback=bind_default),
            )
        )
    return _assemble(build, sections)


def _assemble(build: _Build, sections: Sequence[tuple[int, int, Rows]]) -> PolicyBlob:
    """Port lists first: rows hold their offsets. Then each section's rows and tables."""
    swept = [(d, flag, rows, [(f, _sweep(f, rows, build.budget)) for f in (V4, V6)]) for d, flag, rows in sections]
    cells = array("Q", build.lists.cells)
    for direction, flag, rows, tables in swept:
        build.header[abi.POLICY_FLAGS] |= abi.cell(flag, 0)
        build.header[abi.POLICY_ROWS + direction] = abi.cell(len(cells), rows.count)
        cells.extend(rows.cells)
        for family, pieces in tables:
            table, bits = table_cells(family, pieces, len(cells))
            build.budget.spend_cells(len(table))
            first_cell = abi.POLICY_V4 if family is V4 else abi.POLICY_V6
            build.header[first_cell + direction] = abi.cell(len(cells), bits)
            build.entries += len(pieces.starts)
            cells.extend(table)
    row_count = sum(rows.count for _, _, rows in sections)
    sizes = BlobSizes(len(cells), row_count, build.lists.count, build.entries)
    return PolicyBlob(cells, tuple(build.header), sizes)


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
