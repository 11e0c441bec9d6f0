# SPDX-License-Identifier: Apache-2.0
"""Keeping the process small and its long-lived objects out of the collector's way.

Must not know what is kept.
"""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 128 * 1024


def keep_large_blocks_apart() -> None:
    """Have the C library map every large block by itself, so that it is given back when it is freed.

    Left alone, it puts them on the heap once it has seen some freed, where what lives behind them keeps them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def shrink() -> None:
    """What lives now lives long: keep the collector from walking it, and give freed pages back to the system."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
