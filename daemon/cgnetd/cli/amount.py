# SPDX-License-Identifier: Apache-2.0
"""Amounts of memory as people read them. Must not know what takes it."""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB")


def amount(size_bytes: int) -> str:
    """In the largest unit of which it is at least one: "512 bytes", "64.0 KiB"."""
    size, units = float(size_bytes), iter(_UNITS)
    unit = next(units)
    # What would be written as "1024.0" is one of the next unit.
    while size >= (1023.95 if unit != _UNITS[0] else 1024) and unit != _UNITS[-1]:
        size, unit = size / 1024, next(units)
    return f"{size_bytes} bytes" if unit == _UNITS[0] else f"{size:.1f} {unit}"


def memory(image_bytes: int, limit_bytes: int) -> str:
    """Of a compiled image, beside what it may take."""
    return f"{amount(image_bytes)} of tables, at most {amount(limit_bytes)} (limits.image_bytes)"
