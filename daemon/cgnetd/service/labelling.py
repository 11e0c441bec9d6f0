# SPDX-License-Identifier: Apache-2.0
"""Labels of all existing cgroups: derived from the tree and the images, compared with the kernel's, put right.

The programs label new cgroups by themselves; this labels those that exist when a generation comes, and is the safety
net afterwards. Must not know how a label is derived, nor of policies.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cgnetd.datapath import abi
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label, child_label, pack_entry, pack_label, relabelled, root_label, unpack_entry
from cgnetd.errors import KernelError
from cgnetd.kernel.cgroup import Cgroup, CgroupRoot
from cgnetd.kernel.store import Store
from cgnetd.service.cgroup_tree import follow
from cgnetd.service.generation import Generation

_WALKS = 50


@dataclass(slots=True)
class SlotLabels:
    """The labels of one slot's generation, as far as they were derived."""

    generation: int
    reader: ImageReader
    basis: bytes
    by_id: dict[int, Label] = field(default_factory=dict)
    packed: dict[int, bytes] = field(default_factory=dict)

    def derive(self, cgroup: Cgroup) -> None:
        """Derive the label of a cgroup whose parent's is known, as it is in a walk from the root."""
        if cgroup.parent_id:
            parent = self.by_id[cgroup.parent_id]
            self.by_id[cgroup.id] = child_label(self.reader, parent, os.fsencode(cgroup.name))
        else:
            self.by_id[cgroup.id] = root_label(self.reader)

    def entry(self, cgroup_id: int) -> bytes:
        """The packed label of a cgroup that was derived."""
        packed = self.packed.get(cgroup_id)
        if packed is None:
            packed = self.packed[cgroup_id] = pack_label(self.by_id[cgroup_id], self.generation)
        return packed

    def under(self, generation: int, reader: ImageReader) -> SlotLabels:
        """The same labels of a generation with the same basis."""
        packed = {cgroup_id: relabelled(label, generation) for cgroup_id, label in self.packed.items()}
        return SlotLabels(generation, reader, self.basis, dict(self.by_id), packed)

    def forget_all_but(self, tree: Mapping[int, Cgroup]) -> None:
        for gone in self.by_id.keys() - tree.keys():
            del self.by_id[gone]
            self.packed.pop(gone, None)


@dataclass(frozen=True, slots=True)
class Differences:
    """What the kernel's labels lack. `foreign`: entries of no cgroup of ours; `stale`: of one that was removed."""

    wrong: dict[int, bytes] = field(default_factory=dict)
    foreign: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.wrong or self.foreign or self.stale)


def label_at(reader: ImageReader, path: str) -> Label:
    """The label that a cgroup at this path below the root has, or would have if it came into being."""
    label = root_label(reader)
    for name in path.strip("/").split("/") if path.strip("/") else ():
        label = child_label(reader, label, os.fsencode(name))
    return label


class Labelling:
    """The tree as it was last seen, and what its labels should be in each slot."""

    def __init__(self, root: CgroupRoot, store: Store) -> None:
        self._root = root
        self._store = store
        self._slots: list[SlotLabels | None] = [None, None]
        self._failed: int | None = None  # cgroups that the kernel could not label before the tree was walked last
        self.tree: dict[int, Cgroup] = {}

    def use(self, slot: int, number: int, generation: Generation) -> None:
        """From now on a slot holds this generation, under this number. Labels that another slot's gives too are not
        derived again."""
        reader, basis = generation.reader, generation.label_basis
        same = next((known for known in self._slots if known is not None and known.basis == basis), None)
        self._slots[slot] = same.under(number, reader) if same else SlotLabels(number, reader, basis)

    def drop(self, slot: int) -> None:
        """From now on a slot is empty."""
        self._slots[slot] = None

    def holds(self, slot: int, generation: int) -> bool:
        """Whether this generation is the one known to be in the slot."""
        known = self._slots[slot]
        return known is not None and known.generation == generation

    def doubt(self) -> None:
        """The kernel did not label new cgroups for some time: the next look at the tree is a walk."""
        self._failed = None

    def label_all(self) -> int:
        """Label every cgroup in every slot in use; returns how many there are.

        A child made after its parent was labelled is labelled by the kernel, one made before is found by the next walk:
        so walk until a walk finds nothing new that the kernel has not labelled, none being made meanwhile with the
        parent's label of before. The first one is saved where the kernel's labels tell as much. Raises KernelError if
        labels cannot be written, or are never right.
        """
        written = self._label_known()
        for walk in range(_WALKS):
            fresh = self._follow() if written and not walk else None
            if fresh is None:
                fresh = self._walk()
            entries = {cgroup_id: self._entry(cgroup_id) for cgroup_id in fresh}
            if walk or written:
                entries = {i: entry for i, entry in entries.items() if self._lacks(i, entry)}
            if not entries:
                self._forget(written - self.tree.keys())
                return len(self.tree)
            self._write(entries)
            written |= entries.keys()
            self._root.settle()
        raise KernelError(
            f"label cgroups below {self._root.path}: new ones keep coming faster than they can be labelled"
        )

    def _lacks(self, cgroup_id: int, entry: bytes) -> bool:
        """Whether a cgroup that is still there has another label."""
        return not self._agree(self._store.label(cgroup_id), entry) and self._exists(cgroup_id)

    def _label_known(self) -> set[int]:
        """Label the cgroups of the last walk whose labels are known, without a walk; the tree is these from here on."""
        known = [slot.by_id.keys() for slot in self._slots if slot is not None]
        # Those that went since have no label any more, and must not get one: there may be many, and no room for them.
        there = self._store.labelled() if self.tree and all(known) else set[int]()
        for ids in known:
            there &= ids
        self.tree = {i: cgroup for i, cgroup in self.tree.items() if i in there}
        if self.tree:
            self._write({cgroup_id: self._entry(cgroup_id) for cgroup_id in self.tree})
            self._root.settle()
        return set(self.tree)

    def differences(self) -> Differences:
        """Compare the kernel's labels with what they should be. Changes nothing."""
        # Labels first, then the tree: what is in both must agree, whatever comes meanwhile.
        before = self._store.labels()
        known = self.tree
        self.tree = {}
        self._walk()
        wrong = {i: entry for i in self.tree if not self._agree(before.get(i), entry := self._entry(i))}
        if wrong:
            now = self._store.labels()
            wrong = {i: entry for i, entry in wrong.items() if not self._agree(now.get(i), entry) and self._exists(i)}
        extra = [i for i in before.keys() - self.tree.keys() if not self._exists(i)]
        foreign = tuple(sorted(i for i in extra if i not in known))
        return Differences(wrong, foreign, tuple(sorted(set(extra) - set(foreign))))

    def mend(self, differences: Differences) -> None:
        """Write the labels that were found wrong or missing."""
        self._write(differences.wrong)

    def drop_extra(self, differences: Differences) -> None:
        """Remove the labels that were found to be of no cgroup of ours."""
        self._store.delete_labels((*differences.foreign, *differences.stale))

    def remove_all(self) -> None:
        """Remove every label: nothing is governed."""
        self._store.delete_labels(self._store.labels())
        self.tree = {}

    def labels(self, slot: int) -> tuple[Label, ...]:
        """The labels of a slot's generation, as of the last walk."""
        known = self._slots[slot]
        return tuple(known.by_id.values()) if known else ()

    def _walk(self) -> list[int]:
        """See the whole tree once; returns the ids that were not known."""
        self._failed = self._failures()
        return self._see(self._root.walk())

    def _follow(self) -> list[int] | None:
        """As `_walk`, by what has a label; None if that may not be all.

        To be called when every mkdir that was under way when labels were written has come to its end: then what has no
        label that is known to be right has one that the programs made. Cgroups are counted first: one that comes after
        that has a label when labels are read, and then they are too many. A cgroup without a label is one too few, and
        could only pass for one that went while it was labelled: so the kernel must not have failed to label any.
        """
        descendants = self._root.descendants()
        if descendants is None or self._failed is None or self._failed != self._failures():
            return None
        tree = follow(self._root, self.tree, self._store.labelled(), descendants)
        return None if tree is None else self._see(tree.values())

    def _failures(self) -> int:
        return self._store.stats()[abi.STAT_LABEL_FAILED]

    def _see(self, cgroups: Iterable[Cgroup]) -> list[int]:
        """The tree is these from here on, parents before children; returns the ids that were not known."""
        seen: dict[int, Cgroup] = {}
        slots = [slot for slot in self._slots if slot is not None]
        for cgroup in cgroups:
            cgroup_id = cgroup.id
            seen[cgroup_id] = cgroup
            for slot in slots:
                if cgroup_id not in slot.by_id:
                    slot.derive(cgroup)
        fresh = [i for i in seen if i not in self.tree]
        self.tree = seen
        for slot in slots:
            slot.forget_all_but(seen)
        return fresh

    def _entry(self, cgroup_id: int) -> bytes:
        """The cgroup's struct cgn_entry."""
        return pack_entry([slot.entry(cgroup_id) if slot else None for slot in self._slots])

    def _agree(self, found: bytes | None, entry: bytes) -> bool:
        """Whether the labels of the slots in use are the same; what an unused one holds means nothing."""
        if found is None or found == entry:
            return found is not None
        pairs = zip(self._slots, unpack_entry(found), unpack_entry(entry), strict=True)
        return all(slot is None or one == other for slot, one, other in pairs)

    def _write(self, entries: Mapping[int, bytes]) -> None:
        if entries:
            self._store.set_labels(entries)

    def _forget(self, cgroup_ids: Iterable[int]) -> None:
        """Remove the labels of those that went while they were labelled: nobody else would."""
        if gone := [i for i in cgroup_ids if not self._exists(i)]:
            self._store.delete_labels(gone)

    def _exists(self, cgroup_id: int) -> bool:
        return cgroup_id == self._root.id or self._root.path_of(cgroup_id) is not None
