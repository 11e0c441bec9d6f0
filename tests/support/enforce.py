# SPDX-License-Identifier: Apache-2.0
"""A policy set in force on a private cgroup, put there without a daemon, by the steps the daemon takes.

The order is the one that never has a wrong verdict: image, label the tree, attach, put in force. Must not know cases.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label, child_label, pack_entry, pack_label, root_label, unpack_entry, unpack_label
from cgnetd.datapath.state import hooks_in_force
from cgnetd.kernel import features, netns
from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.hooks import HOOKS
from cgnetd.kernel.live import LiveTable
from cgnetd.kernel.maps import Capacity
from cgnetd.kernel.programs import Programs
from cgnetd.kernel.slots import SlotView
from cgnetd.kernel.store import Store

TRACEPOINTS = ("cgroup_mkdir", "cgroup_rmdir")
REWRITING = frozenset({"redirect_tcp", "redirect_udp", "bind_view", "unix_redirect"})  # of RuleIndex.needs
WINDOW_NS = 10_000_000_000


def live_cells(image: Image) -> array[int]:
    """As if the host had every source address, and every backend were alive. Devices are those that are there."""
    devices = {name: index for index, name in socket.if_nameindex()}
    return image.live.cells(device_index=devices, present=image.live.sources, alive=lambda *_: True)


class Enforcement:
    """Store, programs and links of one private root. Needs closing."""

    def __init__(self, root_path: Path, pin_dir: Path, object_dir: Path, capacity: Capacity | None = None) -> None:
        with ExitStack() as undo:
            self.root = undo.enter_context(CgroupRoot(root_path))
            self.store = undo.enter_context(Store.open(pin_dir, self.root, create=True, capacity=capacity))
            self._features = features.probe()
            self._programs = undo.enter_context(Programs(self.store, self._features, object_dir))
            self.links = undo.enter_context(Attachments(self.store, self.root, self._programs))
            self._stack = undo.pop_all()
        self.store.set_window(WINDOW_NS)

    def load(self, image: Image, hooks: Iterable[str] | None = None) -> None:
        """Put an image in force, everywhere below the root, with `hooks` attached, by default those that it needs.

        Generations must differ. Live cells speak of the network namespace of the calling thread.
        """
        control = self.store.control()
        slot = 1 - control.active if control.generations[control.active] else control.active
        self.put(slot, image)
        self.links.attach(TRACEPOINTS)
        while self.label_tree(slot, image):
            pass
        self.store.set_netns(netns.cookie())
        if image.index.needs & REWRITING:
            self.store.set_flags(abi.CONTROL_VIEWS)
        needed = hooks_in_force(image.index) - self._features.lacking_hooks()
        self.links.attach(needed if hooks is None else hooks)
        self.store.activate(slot)
        self.image = image

    def put(self, slot: int, image: Image) -> None:
        """Fill a slot and name its generation; nothing is labelled for it yet."""
        index = image.index
        live = memoryview(live_cells(image))
        self.store.write_slot(slot, memoryview(image.cells), index.to_bytes(), len(index.refs), live)
        self.store.set_generation(slot, index.generation)

    def live(self) -> LiveTable:
        """The live cells in force. The caller closes it."""
        return self.store.live(self.store.control().active)

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
