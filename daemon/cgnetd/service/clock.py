# SPDX-License-Identifier: Apache-2.0
"""Times of the kernel (CLOCK_BOOTTIME) as times of the wall, and durations as people write them.

Must not know what is timed.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

_UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+)")


def boottime_offset_ns() -> int:
    """What to add to a CLOCK_BOOTTIME value to get nanoseconds since 1970. Changes when the wall clock is set."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def rfc3339(realtime_ns: int) -> str:
    """ "2026-01-31T12:00:00.000000Z": UTC with microseconds."""
    whole, rest = divmod(realtime_ns, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def parse_duration(text: str) -> int:
    """Nanoseconds of "500ms", "10s", "1.5m", "1h". Raises ValueError saying what is accepted."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS_NS:
        raise ValueError('accepted is a number with a unit: "500ms", "10s", "10m" or "1h"')
    return round(float(match[1]) * _UNITS_NS[match[2]])
