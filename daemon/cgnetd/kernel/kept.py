# SPDX-License-Identifier: Apache-2.0
"""Links and tables that outlived their pins as descriptors, pinned again. Must not know who kept them."""

from __future__ import annotations

from pathlib import Path

from cgnetd.kernel import bpffs
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.pins import LINKS, SLOTS, pin_over
from pybpf import Link, Map, pinned_kind


def pin_again(pin_dir: Path, name: str, fd: int) -> None:
    """Pin a link or a table under its name (`links/HOOK`, `slots/N/TABLE`) if nothing is pinned there; closes it.

    What has another name is closed only. PinError, KernelError.
    """
    directory, *parts = pin_dir, *Path(name).parts
    try:
        with Map(fd) if pinned_kind(fd) == "map" else Link(fd) as kept:
            if parts[:1] not in ([LINKS], [SLOTS]) or ".." in parts or (pin_dir / name).exists():
                return
            for part in parts[:-1]:
                directory /= part
                bpffs.make_dir(directory)
            pin_over(kept, pin_dir / name)
    except OSError as error:
        raise kernel_error(f"pin {pin_dir / name} again", error) from error
