# SPDX-License-Identifier: Apache-2.0
"""What a plot shows, as values. Must not know how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curves:
    """One plot, both axes logarithmic: points by name; names that differ in what is behind a comma share a color."""

    title: str
    x: str
    y: str
    points: Mapping[str, Points]


@dataclass(frozen=True, slots=True)
class Spreads:
    """One plot of ratios by group and name: middle, low, high."""

    title: str
    x: str
    ratios: Mapping[str, Mapping[str, tuple[float, float, float]]]
