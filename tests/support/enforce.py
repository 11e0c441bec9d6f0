# SPDX-License-Identifier: Apache-2.0
"""A policy set in force on a private cgroup, put there without a daemon, by the steps the daemon takes.

The order is the one that never has a wrong verdict: image, label the tree, put in force, attach. Must not know cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label, child_label, pack_entry, pack_label, root_label, unpack_entry, unpack_label
from cgnetd.kernel import features
from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.hooks import HOOKS
from cgnetd.kernel.programs import Programs
from cgnetd.kernel.slots import SlotView
from cgnetd.kernel.store import Store

TRACEPOINTS = ("cgroup_mkdir", "cgroup_rmdir")
WINDOW_NS = 10_000_000_000


class Enforcement:
    """Store, programs and links of one private root. Needs closing."""

    def __init__(self, root_path: Path, pin_dir: Path, object_dir: Path) -> None:
        with ExitStack() as undo:
            self.root = undo.enter_context(CgroupRoot(root_path))
            self.store = undo.enter_context(Store.open(pin_dir, self.root, create=True))
            self._programs = undo.enter_context(Programs(self.store, features.probe(), object_dir))
            self.links = undo.enter_context(Attachments(self.store, self.root, self._programs))
            self._stack = undo.pop_all()
        self.store.set_window(WINDOW_NS)

    def load(self, image: Image, hooks: Iterable[str] = HOOKS) -> None:
        """Put an image in force, everywhere below the root, with `hooks` attached. Generations must differ."""
        control = self.store.control()
        slot = 1 - control.active if control.generations[control.active] else control.active
        self.put(slot, image)
        self.links.attach(TRACEPOINTS)
        while self.label_tree(slot, image):
            pass
        self.store.activate(slot)
        self.links.attach(hooks)
        self.image = image

    def put(self, slot: int, image: Image) -> None:
        """Fill a slot and name its generation; nothing is labelled for it yet."""
        index = image.index
        self.store.write_slot(slot, memoryview(image.cells), index.to_bytes(), len(index.refs))
        self.store.set_generation(slot, index.generation)

    def label_tree(self, slot: int, image: Image) -> int:
        """Label every cgroup that is there and has no label of this generation. Returns how many those were."""
        reader, generation = ImageReader(image.cells), image.index.generation
        derived: dict[int, Label] = {}
        entries, changed = self.store.labels(), {}
        for cgroup in self.root.walk():
            parent = derived.get(cgroup.parent_id)
            label = child_label(reader, parent, cgroup.name.encode()) if parent else root_label(reader)
            derived[cgroup.id] = label
            slots = list(unpack_entry(entries.get(cgroup.id, bytes(abi.ENTRY.size))))
            if (unpack_label(slots[slot]) or (0, None))[0] != generation:
                slots[slot] = pack_label(label, generation)
                changed[cgroup.id] = pack_entry(slots)
        self.store.set_labels(changed)
        return len(changed)

    def label_of(self, path: str) -> Label | None:
        """The label in force of a cgroup, None if it has none of this generation."""
        control = self.store.control()
        entry = self.store.label(self.root.id_of(path) or 0)
        found = unpack_label(unpack_entry(entry)[control.active]) if entry else None
        return found[1] if found and found[0] == control.generations[control.active] else None

    def slot(self) -> SlotView:
        """The slot in force. The caller closes it."""
        return self.store.slot(self.store.control().active)

    def close(self) -> None:
        self.links.detach(HOOKS)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
