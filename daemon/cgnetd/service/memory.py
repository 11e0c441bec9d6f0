# SPDX-License-Identifier: Apache-2.0
"""Keeping the process small and its long-lived objects out of the collector's way.

Must not know what is kept.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """No cyclic collection: it would walk the hundred thousands of objects that a pass makes, again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def shrink() -> None:
    """What lives now lives long: keep the collector from walking it, and give freed pages back to the system."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
