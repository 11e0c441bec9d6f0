# SPDX-License-Identifier: Apache-2.0
"""What the service manager holds from one daemon to the next when the pins are gone: the links, through which the
kernel holds programs and tables, and the tables in force.

Must not know why a daemon is followed by another one.
"""

from __future__ import annotations

import os
from pathlib import Path

from systemd import daemon

from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.kept import pin_again
from cgnetd.kernel.pins import LINKS, SLOTS
from cgnetd.kernel.store import Store


def keep(links: Attachments, store: Store, slot: int, index: bytes) -> None:
    """Give the service manager the links and what is in a slot, `index` with it, each by the name of its pin.
    KernelError; a service manager that does not listen is no error."""
    for name, fd in links.held().items():
        _store(f"{LINKS}/{name}", fd)
    for name, table in store.tables(slot, index).items():
        with table:
            _store(f"{SLOTS}/{slot}/{name}", table.fd)


def restore(pin_dir: Path) -> None:
    """Pin what the service manager kept, where there is no such pin; it keeps it no longer. PinError, KernelError."""
    for fd, name in daemon.listen_fds_with_names().items():
        os.set_inheritable(fd, False)
        pin_again(pin_dir, name, fd)
        _notify(f"FDSTOREREMOVE=1\nFDNAME={name}", [])


def _store(name: str, fd: int) -> None:
    # Without FDPOLL=0 systemd would let go of a map at once: polled, maps say that they are broken.
    _notify(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd])


def _notify(lines: str, fds: list[int]) -> None:
    try:
        daemon.notify(lines, fds=fds)
    except OSError:
        return
