# SPDX-License-Identifier: Apache-2.0
"""How much work something is, counted, so that it is the same on every machine. Must not know of clocks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def work(act: Callable[[], object]) -> int:
    """Calls of functions, in Python and in C, that `act` makes. What C does within one call is not seen."""
    counted = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(before)
    return counted
