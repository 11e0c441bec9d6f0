# SPDX-License-Identifier: Apache-2.0
"""Tells once of each conflict with a program of others, when it appears and when it ends.

Must not know how conflicts are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from cgnetd.errors import CgnetdError
from cgnetd.kernel.conflicts import Clash, Conflict
from cgnetd.service.events import Kind, Message
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.report import few, message


class ConflictTeller:
    """Remembers what the world was told of."""

    def __init__(self) -> None:
        self._told: tuple[Conflict, ...] = ()

    def messages(self, found: tuple[Conflict, ...]) -> Iterator[Message]:
        """What changed: `found` are all conflicts of now."""
        fresh = tuple(conflict.text for conflict in found if conflict not in self._told)
        ended = tuple(_name(conflict) for conflict in self._told if conflict not in found)
        self._told = found
        if fresh:
            text = f"conflict with programs of others: {'; '.join(few(fresh))}"
            yield message(Kind.CONFLICT, text, conflicts=list(fresh))
        if ended:
            text = f"conflicts with programs of others ended: {'; '.join(few(ended))}"
            yield message(Kind.CONFLICT_ENDED, text, conflicts=list(ended))


def is_held(reconciler: Reconciler) -> bool:
    """Whether somebody keeps a hook from ours: it can be let go at any time."""
    with suppress(CgnetdError):
        return any(conflict.clash is Clash.HELD for conflict in reconciler.conflicts())
    return False


def _name(conflict: Conflict) -> str:
    return f"hook {conflict.hook}, program {conflict.other.prog_id} {conflict.other.name} at {conflict.cgroup}".rstrip()
