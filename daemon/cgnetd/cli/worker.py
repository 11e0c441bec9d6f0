# SPDX-License-Identifier: Apache-2.0
"""`cgnetd --worker NAME`: one of the processes that do for the daemon what it has no right to do.

Must not know how they are spoken to.
"""

from __future__ import annotations

from cgnetd.service.serving import run
from cgnetd.service.worker import PROBER


def work(name: str) -> int:
    """Serve the connection that the service manager passes; returns the exit code. CgnetdError."""
    if name == PROBER:  # each imports what it needs alone
        from cgnetd.service.probing import serve
    else:
        from cgnetd.service.sockets import serve
    return run(name, serve)
