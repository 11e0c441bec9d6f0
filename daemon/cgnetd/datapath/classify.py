# SPDX-License-Identifier: Apache-2.0
"""What one policy of an image says of a call: a flow in the image's terms -> the cell of the rule that matches.

The counterpart of bpf/verdict.bpf.h, as far as it is about one policy. Must not know of chains or verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.reader import LOW, WORD, CellReader, CorruptImageError
from cgnetd.datapath.rows import PROTOCOLS
from cgnetd.datapath.rules import EPERM
from cgnetd.datapath.sockets import socket_context
from cgnetd.policy.names import is_unsure
from cgnetd.policy.types import Flow, Hook

BIND_HOOKS = frozenset({Hook.BIND, Hook.POST_BIND})
FLAGS = {
    abi.DIR_EGRESS: abi.POLICY_EGRESS,
    abi.DIR_BIND: abi.POLICY_BIND,
    abi.DIR_SOCKET: abi.POLICY_NEW_SOCKET,
    abi.DIR_UNIX: abi.POLICY_UNIX,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A flow in the image's terms."""

    hook: Hook
    direction: int
    context: int  # of the direction; of a SOCKET flow: the opaque class
    family: int
    address: int
    port: int
    both_families: bool
    name: bytes

    @property
    def is_unsure(self) -> bool:
        """The call names a UNIX socket that could be any."""
        return self.direction == abi.DIR_UNIX and is_unsure(self.name)


class Match(NamedTuple):
    """What a policy says: the cell of the rule that matches, None if it has nothing to say."""

    rule: int | None
    audit: bool


class Classifier(CellReader):
    """The policies of an image, each by itself."""

    def match(self, policy_id: int, call: Call) -> Match:
        """The rule or default of the policy that matches, with the action that it has for this call.

        CorruptImageError if it cannot be told.
        """
        header = self.header(policy_id)
        flags = abi.hi(self.cell(header + abi.POLICY_FLAGS))
        audit = bool(flags & abi.POLICY_AUDIT)
        if not flags & FLAGS[call.direction]:
            return Match(None, audit)
        base = self.cell(header + abi.POLICY_BASE)
        reference = self._reference(header, abi.hi(base), call)
        if reference == abi.REF_CORRUPT:
            raise CorruptImageError("read image: a rule reference of 0")
        if reference == abi.REF_NONE:
            return Match(None, audit)
        return Match(_says(call, self.rule(abi.lo(base) + reference - abi.REF_RULE)), audit)

    def _reference(self, header: int, blob: int, call: Call) -> int:
        if call.direction == abi.DIR_UNIX:
            return self._by_name(header, blob, call)
        if call.direction == abi.DIR_SOCKET:
            return abi.lo(self.cell(header + abi.POLICY_SOCKET + call.context))
        if call.hook is Hook.SOCKET:
            return abi.lo(self.cell(header + abi.POLICY_OPAQUE + call.context))
        return self._by_address(header, blob, call)

    def _by_name(self, header: int, blob: int, call: Call) -> int:
        """Name -> state -> rule reference; a name that could be any is not looked up."""
        if call.is_unsure:
            references = self.cell(header + abi.POLICY_NAMES_UNSURE)
        else:
            states = self.cell(header + abi.POLICY_NAMES)
            state = self.name_state(blob, states, call.name)
            references = self.cell(blob + abi.hi(states) + state * abi.NAME_STATE_CELLS + 2)
        return abi.hi(references) if call.hook is Hook.CONNECT else abi.lo(references)

    def _by_address(self, header: int, blob: int, call: Call) -> int:
        """Address -> row -> ports -> rule reference; the same of the row for any address."""
        if call.family == abi.FAMILY_V4:
            row = self.row(blob, self.cell(header + abi.POLICY_V4 + call.direction), call.address << 32, 0)
        else:
            node = self.cell(header + abi.POLICY_V6 + call.direction)
            row = self.row(blob, node, call.address >> 64, call.address & LOW)
        rows = self.cell(header + abi.POLICY_ROWS + call.direction)
        columns = self.cell(header + abi.POLICY_COLUMNS + call.direction)
        count, column = columns >> 60, columns >> call.context * 4 & 15
        if row >= abi.lo(rows) or column >= count:
            raise CorruptImageError(f"read image: there is no row {row}, or no column {column}")
        common = blob + abi.hi(rows) + column
        return _earlier(
            self._by_port(blob, self.cell(common + (row + 1) * count), call),
            self._by_port(blob, self.cell(common), call),
        )

    def _by_port(self, blob: int, cell: int, call: Call) -> int:
        """By the port; of a port that the kernel picked, the earlier one of `ephemeral` and the port."""
        reference = self._of_port(blob, cell, call.port)
        return _earlier(reference, self._of_port(blob, cell, 0)) if call.hook is Hook.POST_BIND else reference

    def _of_port(self, blob: int, cell: int, port: int) -> int:
        place, ports = abi.hi(cell), abi.lo(cell)
        if place & abi.PORTS_RANGE:
            return place & ~abi.PORTS_RANGE if ports >> 16 <= port <= ports & 0xFFFF else abi.REF_NONE
        if ports & abi.PORTS_INDEX:
            cell = self.cell(blob + place + (port >> (ports & 15)))
            place, ports = abi.hi(cell), abi.lo(cell)
        return abi.lo(self.bisect(blob + place, ports, port << 32 | WORD)) if ports else place


def _earlier(one: int, other: int) -> int:
    """Of two references the one of the rule that comes first; corrupt if one is."""
    if abi.REF_CORRUPT in (one, other):
        return abi.REF_CORRUPT
    return min(one, other, key=lambda reference: reference if reference != abi.REF_NONE else WORD)


def call_of(flow: Flow) -> Call:
    """The flow in the image's terms."""
    bind = flow.hook in BIND_HOOKS
    return Call(
        hook=flow.hook,
        direction=_direction(flow),
        context=_context(flow),
        family=flow.family,
        address=flow.address,
        port=flow.port,
        both_families=bind and flow.family == abi.FAMILY_V6 and flow.address == 0 and not flow.v6_only,
        name=flow.name,
    )


def action_of(rule: int) -> int:
    """abi.ACTION_* of a rule's cell."""
    return rule & 0xFF


def denial(rule: int, errno: int) -> int:
    """The cell of a rule that denies with `errno` whatever it says."""
    return abi.cell(abi.hi(rule), errno << 16 | rule & 0xFF00 | abi.ACTION_DENY)


def permission(rule: int) -> int:
    """The cell of a rule that allows whatever it says."""
    return rule & ~0xFF | abi.ACTION_ALLOW


def _direction(flow: Flow) -> int:
    if flow.hook in BIND_HOOKS:
        return abi.DIR_BIND
    if flow.hook is Hook.CREATE:
        return abi.DIR_SOCKET
    return abi.DIR_UNIX if flow.family == abi.FAMILY_UNIX else abi.DIR_EGRESS


def _context(flow: Flow) -> int:
    if flow.hook is Hook.CREATE:
        return socket_context(flow.family, flow.type)
    if flow.hook is Hook.SOCKET and flow.raw:
        return abi.OPAQUE_RAW
    return PROTOCOLS.index(flow.protocol) + (abi.PROTO_COUNT if flow.hook is Hook.SENDMSG else 0)


def _says(call: Call, rule: int) -> int:
    """A rule that rewrites denies where it cannot be followed, and allows a port that the kernel has picked."""
    if action_of(rule) != abi.ACTION_REWRITE:
        return rule
    if call.hook is Hook.SOCKET or call.is_unsure:
        return denial(rule, EPERM)
    return permission(rule) if call.hook is Hook.POST_BIND else rule
