# SPDX-License-Identifier: Apache-2.0
"""Labels: what governs a cgroup, derived from its parent's label and its name.

Exactly what the kernel does for a new cgroup. Must not know where labels are kept, or how an automaton is built.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from cgnetd.datapath import abi
from cgnetd.datapath.reader import CellReader

_GENERATION = struct.Struct("=I")  # what struct cgn_label begins with
_NO_LABEL = bytes(abi.LABEL.size)


@dataclass(frozen=True, slots=True)
class Label:
    """`policies` in order of evaluation; `excluded`: what `not:` took away for good. Both empty after an overflow."""

    state: int
    policies: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()
    overflow: bool = False


def root_label(reader: CellReader) -> Label:
    """The label of the managed root."""
    return _derive(reader, Label(0), 0)


def child_label(reader: CellReader, parent: Label, name: bytes) -> Label:
    """The label of a cgroup called `name` right below `parent`'s. CorruptImageError if the image cannot be right."""
    return _derive(reader, parent, reader.next_state(parent.state, b"/" + name))


def _derive(reader: CellReader, parent: Label, state: int) -> Label:
    if parent.overflow:
        return Label(state, overflow=True)
    matching, excluding = reader.accept(state)
    if not matching and not excluding:
        return Label(state, parent.policies, parent.excluded)
    if max(len(matching), len(excluding)) > abi.CHAIN_MAX:
        return Label(state, overflow=True)
    excluded = parent.excluded + tuple(policy for policy in excluding if policy not in parent.excluded)
    chain = [policy for policy in parent.policies if policy not in excluded]
    arriving = [policy for policy in matching if policy not in excluded]
    policies = _insert(reader, chain, arriving)
    if len(policies) + len(excluded) > abi.CHAIN_MAX:
        return Label(state, overflow=True)
    return Label(state, policies, excluded)


def _insert(reader: CellReader, chain: Sequence[int], arriving: Sequence[int]) -> tuple[int, ...]:
    """Admin policies behind their part, unless there already; normal and baseline ones in front of theirs."""
    inserted: list[int] = []
    for tier in (abi.TIER_ADMIN, abi.TIER_NORMAL, abi.TIER_BASELINE):
        old = [policy for policy in chain if reader.tier(policy) == tier]
        new = [policy for policy in arriving if reader.tier(policy) == tier]
        if tier == abi.TIER_ADMIN:
            inserted += [*old, *(policy for policy in new if policy not in old)]
        else:
            inserted += [*new, *(policy for policy in old if policy not in new)]
    return tuple(inserted)


def label_basis(cells: array[int]) -> bytes:
    """What the labels of an image are derived from: images with equal ones give equal labels."""
    policies, rules_at = abi.hi(cells[abi.IMAGE_COUNTS]), abi.lo(cells[abi.IMAGE_RULES])
    states_at = abi.hi(cells[abi.IMAGE_STATES])
    flags = cells[abi.IMAGE_HEADER + abi.POLICY_FLAGS : states_at : abi.POLICY_CELLS][:policies]
    tiers = bytes([abi.lo(cell) for cell in flags])
    return tiers + cells[states_at:rules_at].tobytes()


def relabelled(packed: bytes, generation: int) -> bytes:
    """A packed label under another generation."""
    return _GENERATION.pack(generation) + packed[_GENERATION.size :]


def pack_label(label: Label, generation: int) -> bytes:
    """struct cgn_label."""
    ids = (*label.policies, *label.excluded)
    padding = (0,) * (abi.CHAIN_MAX - len(ids))
    flags = abi.LABEL_OVERFLOW if label.overflow else 0
    counts = (len(label.policies), len(label.excluded))
    return abi.LABEL.pack(generation, label.state, *counts, flags, *ids, *padding)


def unpack_label(data: bytes | memoryview) -> tuple[int, Label] | None:
    """Generation and label of a struct cgn_label; None if it cannot be right."""
    generation, state, governing, excluded, flags, *ids = abi.LABEL.unpack(data)
    if governing + excluded > abi.CHAIN_MAX:
        return None
    policies, gone = tuple(ids[:governing]), tuple(ids[governing : governing + excluded])
    return generation, Label(state, policies, gone, overflow=bool(flags & abi.LABEL_OVERFLOW))


def pack_entry(slots: Sequence[bytes | None]) -> bytes:
    """struct cgn_entry from one packed label a slot; None is a label of no generation."""
    return b"".join([slot if slot is not None else _NO_LABEL for slot in slots])


def unpack_entry(data: bytes | memoryview) -> tuple[bytes, ...]:
    """The packed label of each slot of a struct cgn_entry."""
    size = abi.LABEL.size
    return tuple(bytes(data[slot * size : (slot + 1) * size]) for slot in range(abi.SLOTS))
