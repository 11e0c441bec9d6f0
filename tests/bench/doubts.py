# SPDX-License-Identifier: Apache-2.0
"""What weighs on the numbers of a run, as sentences. Must not measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_QUIET_LOAD = 0.3  # runnable tasks, mean of a minute, above which others were at work


def doubts(machine: Mapping[str, Any]) -> Iterator[str]:
    """Of a run on that machine; empty if it was a quiet one that has all that is asked for."""
    if machine["load_before"] > _QUIET_LOAD:
        yield f"others were at work: a load of {machine['load_before']:.1f} before the start"
    if machine["foreign_programs"]:
        yield f"{machine['foreign_programs']} programs of others are on calls: nothing here is without any"
    if not machine["counts_instructions"]:
        yield "no counters of the CPU here: instructions that are executed are not told"
    for name in machine["left_out"]:
        yield f"{name} was left out: there was no time for it"
