# SPDX-License-Identifier: Apache-2.0
"""Measuring in turns: one process a setting, all pinned to one CPU, and ratios of turns of the same round.

Machines drift; what is compared is never far apart. Must not know what is measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self


class Worker:
    """A process that measures: `OPERATION COUNT` in, nanoseconds out."""

    def __init__(self, command: Sequence[str | os.PathLike[str]]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self._process.pid, {measuring_cpu()})

    def turn(self, operation: str, count: int) -> float:
        """Nanoseconds a call. RuntimeError if the process has died; it has said why."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{operation} {count}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{operation}: the measuring process has ended")
        return int(answer) / count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


def measuring_cpu() -> int:
    return max(os.sched_getaffinity(0))


def other_cpu() -> int:
    """For what works beside the measuring process; the same one if there is no other."""
    return min(os.sched_getaffinity(0))


def paired(turns: Iterable[Mapping[str, float]], setting: str, baseline: str) -> dict[str, float]:
    """Median and quartiles of the ratios within the rounds."""
    ratios = [turn[setting] / turn[baseline] for turn in turns]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"ratio": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
