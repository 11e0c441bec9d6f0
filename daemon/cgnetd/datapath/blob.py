# SPDX-License-Identifier: Apache-2.0
"""One policy compiled: tables that answer for any call in a few look-ups, wherever in an image they end up.

Nothing in a blob depends on other policies, on the policy's place among them, its tier or its mode, so it can be kept
while the policy's rules stay the same. Must not know of images.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.addresses import V4, V6, Family, Pieces, sweep
from cgnetd.datapath.budget import DEFAULT_LIMIT_CELLS, Budget
from cgnetd.datapath.names import NameAutomaton, NumberedRule, name_cells, unsure_references
from cgnetd.datapath.opaque import opaque_references
from cgnetd.datapath.ports import PortLists
from cgnetd.datapath.rows import BIND_CONTEXTS, EGRESS_CONTEXTS, FORESEEN_FROM, Context, Rows, meetings
from cgnetd.datapath.rules import has_bind, has_egress, has_socket, has_unix, rules_of, tunes_tcp
from cgnetd.datapath.sockets import socket_references, tcp_cells
from cgnetd.datapath.tables import table_cells
from cgnetd.policy.types import Action, AddressRanges, Policy, Range


@dataclass(frozen=True, slots=True)
class BlobSizes:
    """`cells` of 8 bytes; `entries`: those of all address tables; `names`: states of the name automaton."""

    cells: int
    rows: int
    port_lists: int
    entries: int
    names: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PolicyBlob:
    """`cells` with offsets from the blob's start; `header`: the policy header's cells, 0 where the image fills in."""

    cells: array[int]
    header: tuple[int, ...]
    rules: int  # rule ids that the policy takes
    fingerprint: bytes  # equal where `cells` are
    sizes: BlobSizes


class _References(NamedTuple):
    """A policy's rules with their references; those of the defaults, or "nothing decided"."""

    egress: list[NumberedRule]  # on addresses
    unix: list[NumberedRule]
    bind: list[NumberedRule]
    socket: list[NumberedRule]
    default_egress: int
    default_bind: int
    default_socket: int


class _Section(NamedTuple):
    direction: int
    flag: int
    rows: Rows


def compile_policy(policy: Policy, limit_cells: int = DEFAULT_LIMIT_CELLS) -> PolicyBlob:
    """Compile one policy. PolicyError naming it if it needs more than `limit_cells` cells, or as many steps."""
    budget = Budget(policy.name, policy.where, limit_cells)
    lists = PortLists(budget)
    references = _references(policy)
    sections = list(_sections(policy, references, lists, budget))
    header = [0] * abi.POLICY_CELLS
    _fill_in(header, policy, references)
    cells, entries = _assemble(sections, lists, header, budget)
    names = _names(policy, references, header, len(cells), budget)
    cells.extend(names)
    rows = sum(section.rows.count for section in sections)
    states = abi.lo(header[abi.POLICY_NAMES])
    sizes = BlobSizes(len(cells), rows, lists.count, entries, states)
    return PolicyBlob(cells, tuple(header), len(rules_of(policy)), hashlib.sha256(cells).digest(), sizes)


def _references(policy: Policy) -> _References:
    """References in the order of `rules_of`."""
    bind_at = abi.REF_RULE + len(policy.egress)
    socket_at = bind_at + len(policy.bind)
    following = socket_at + len(policy.socket)
    defaults = []
    for action in (policy.default_egress, policy.default_bind, policy.default_socket):
        defaults.append(abi.REF_NONE if action is Action.PASS else following)
        following += action is not Action.PASS
    egress = list(enumerate(policy.egress, abi.REF_RULE))
    return _References(
        [numbered for numbered in egress if numbered[1].unix is None],
        [numbered for numbered in egress if numbered[1].unix is not None],
        list(enumerate(policy.bind, bind_at)),
        list(enumerate(policy.socket, socket_at)),
        *defaults,
    )


def _sections(policy: Policy, known: _References, lists: PortLists, budget: Budget) -> Iterator[_Section]:
    if has_egress(policy):
        rows = _rows(known.egress, EGRESS_CONTEXTS, lists, budget, known.default_egress)
        yield _Section(abi.DIR_EGRESS, abi.POLICY_EGRESS, rows)
    if has_bind(policy):
        rows = _rows(known.bind, BIND_CONTEXTS, lists, budget, known.default_bind)
        yield _Section(abi.DIR_BIND, abi.POLICY_BIND, rows)


def _rows(
    numbered: Sequence[NumberedRule], contexts: Sequence[Context], lists: PortLists, budget: Budget, fallback: int
) -> Rows:
    references, rules = [reference for reference, _ in numbered], [rule for _, rule in numbered]
    return Rows(rules, contexts, lists, budget, references=references, fallback=fallback)


def _fill_in(header: list[int], policy: Policy, known: _References) -> None:
    """What the header says by itself, without tables."""
    opaque = opaque_references(known.egress, known.default_egress)
    header[abi.POLICY_OPAQUE : abi.POLICY_OPAQUE + abi.OPAQUE_COUNT] = opaque
    header[abi.POLICY_DEFAULTS] = abi.cell(known.default_egress, known.default_bind)
    kinds = socket_references(known.socket, known.default_socket)
    header[abi.POLICY_SOCKET : abi.POLICY_SOCKET + abi.SOCKET_CONTEXTS] = kinds
    flags = abi.POLICY_NEW_SOCKET if has_socket(policy) else 0
    if policy.tcp is not None and tunes_tcp(policy):
        flags |= abi.POLICY_TUNES_TCP
        tuning = tcp_cells(policy.tcp)
        header[abi.POLICY_TCP : abi.POLICY_TCP + len(tuning)] = tuning
    header[abi.POLICY_FLAGS] = abi.cell(flags, 0)


def _names(policy: Policy, known: _References, header: list[int], at: int, budget: Budget) -> array[int]:
    """The name automaton, to stand at `at` of the blob; writes its place into the header. None without UNIX rules."""
    if not has_unix(policy):
        return array("Q")
    rows = NameAutomaton(known.unix, budget).rows
    header[abi.POLICY_FLAGS] |= abi.cell(abi.POLICY_UNIX, 0)
    header[abi.POLICY_NAMES] = abi.cell(at, len(rows))
    header[abi.POLICY_NAMES_UNSURE] = abi.cell(*unsure_references(known.unix))
    return name_cells(rows, at)


def _assemble(
    sections: Sequence[_Section], lists: PortLists, header: list[int], budget: Budget
) -> tuple[array[int], int]:
    """The blob's cells and the number of table entries; writes their places into the header.

    Port lists come first, because rows hold their offsets; then each section's rows and tables.
    """
    swept = [(section, [(family, _sweep(family, section.rows, budget)) for family in (V4, V6)]) for section in sections]
    cells, entries = array("Q", lists.cells), 0
    for section, tables in swept:
        _begin_with_most(section.rows, [pieces for _, pieces in tables])
        header[abi.POLICY_FLAGS] |= abi.cell(section.flag, 0)
        header[abi.POLICY_ROWS + section.direction] = abi.cell(len(cells), section.rows.count)
        header[abi.POLICY_COLUMNS + section.direction] = section.rows.columns
        cells.extend(section.rows.cells)
        for family, pieces in tables:
            table, node = table_cells(family, pieces, len(cells))
            budget.spend_cells(len(table))
            first_cell = abi.POLICY_V4 if family is V4 else abi.POLICY_V6
            header[first_cell + section.direction] = node
            entries += len(pieces.starts)
            cells.extend(table)
    return cells, entries


def _begin_with_most(rows: Rows, tables: Sequence[Pieces]) -> None:
    """Give the first number to the row that most pieces have: in address tables it takes no room."""
    found = Counter(chain.from_iterable(pieces.rows for pieces in tables))
    most = found.most_common(1)[0][0]
    if found[0] < found[most]:
        rows.exchange(0, most)
        numbers = {0: most, most: 0}
        for pieces in tables:
            pieces.rows[:] = [numbers.get(row, row) for row in pieces.rows]


def _sweep(family: Family, rows: Rows, budget: Budget) -> Pieces:
    groups = [_ranges(family, addresses) for addresses in rows.addresses]
    if len(groups) >= FORESEEN_FROM:
        budget.foresee(meetings(groups))
    return sweep(family, groups, rows.add, budget)


def _ranges(family: Family, addresses: AddressRanges | None) -> Sequence[Range]:
    """The ranges that cut the line; none for a group that is everywhere."""
    if addresses is None:
        return ()
    return addresses.v4 if family is V4 else addresses.v6
