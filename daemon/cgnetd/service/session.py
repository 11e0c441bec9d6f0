# SPDX-License-Identifier: Apache-2.0
"""Everything the daemon holds open in the kernel for one pin directory and one cgroup root.

Opening changes nothing that is in force. Must not know policies, nor what should be there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.kernel import features as kernel_features
from cgnetd.kernel import netns
from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.cgroup import CgroupRoot, find_root
from cgnetd.kernel.features import Features
from cgnetd.kernel.lock import PinLock
from cgnetd.kernel.maps import Capacity
from cgnetd.kernel.programs import OBJECT_DIR, Programs
from cgnetd.kernel.store import Store
from cgnetd.service.handover import restore
from cgnetd.service.labelling import Labelling
from cgnetd.service.settings import Settings

OBJECT_DIR_VARIABLE = "CGNETD_OBJECT_DIR"  # programs from elsewhere, for those who develop them


def object_dir() -> Path:
    """Where the programs are."""
    return Path(os.environ.get(OBJECT_DIR_VARIABLE) or OBJECT_DIR)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The kernel and the tree as they are, whatever is pinned."""

    root: CgroupRoot
    features: Features
    netns: int  # cookie of the network namespace that this process lives in

    @classmethod
    def find(cls, settings: Settings) -> Self:
        """KernelError or PrivilegeError saying what is missing and how to mend it."""
        features = kernel_features.probe()
        kernel_features.require(features)
        return cls(CgroupRoot(settings.cgroup_root or find_root()), features, netns.cookie())

    def close(self) -> None:
        self.root.close()


class Session:
    """The pin directory, locked, with its maps, programs and links. Needs closing; closing detaches nothing."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        """PinError (foreign, another ABI, held by another process), KernelError or PrivilegeError."""
        self.pin_dir = Path(settings.pin_dir)
        self.root = surroundings.root
        with ExitStack() as undo:
            self._relocks = undo.enter_context(ExitStack())
            self._lock()
            restore(self.pin_dir)
            capacity = Capacity(settings.limits.cgroups, settings.limits.flows)
            self.store = undo.enter_context(Store.open(self.pin_dir, self.root, create=True, capacity=capacity))
            programs = undo.enter_context(Programs(self.store, surroundings.features, object_dir()))
            self.links = undo.enter_context(Attachments(self.store, self.root, programs))
            self.labels = Labelling(self.root, self.store)
            self._stack = undo.pop_all()

    def relock(self) -> None:
        """Lock the pin directory again if it is another one by now: somebody removed it, and it was made again.

        One that could not be made again stays as it is: the step that makes it tells, and is tried again.
        """
        try:
            inode = os.stat(self.pin_dir).st_ino
        except FileNotFoundError:
            return
        if inode != self._inode:
            self._relocks.close()
            self._lock()

    def _lock(self) -> None:
        self._relocks.enter_context(PinLock(self.pin_dir))
        self._inode = os.stat(self.pin_dir).st_ino

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
