# SPDX-License-Identifier: Apache-2.0
"""The interpreter's cyclic collector, kept from objects that are many and in no cycle. Must not know what they are."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """No cyclic collection: it would walk the hundred thousands of objects that are made, again and again, which is a
    third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
