# SPDX-License-Identifier: Apache-2.0
"""Links that the service manager holds from one daemon to the next: when the pins are gone, they are all that keeps
programs attached, and through them the tables.

Must not know why a daemon is followed by another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from systemd import daemon

from cgnetd.kernel import bpffs
from cgnetd.kernel.hooks import HOOKS
from cgnetd.kernel.pins import LINKS, pin_over
from pybpf import Link


def keep(links: Mapping[str, int]) -> None:
    """Give descriptors of links, by hook, to the service manager. One that does not listen is no reason to fail."""
    for name, fd in links.items():
        _notify(f"FDSTORE=1\nFDNAME={name}", [fd])


def restore(pin_dir: Path) -> None:
    """Pin the links that the service manager kept, where there is no such pin; it keeps them no longer. PinError."""
    for fd, name in daemon.listen_fds_with_names().items():
        os.set_inheritable(fd, False)
        if name not in HOOKS:
            os.close(fd)
            continue
        path = pin_dir / LINKS / name
        with Link(fd) as link:
            if not path.exists():
                bpffs.make_dir(path.parent)
                pin_over(link, path)
        _notify(f"FDSTOREREMOVE=1\nFDNAME={name}", [])


def _notify(lines: str, fds: list[int]) -> None:
    try:
        daemon.notify(lines, fds=fds)
    except OSError:
        return
