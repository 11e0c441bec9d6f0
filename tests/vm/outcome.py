# SPDX-License-Identifier: Apache-2.0
"""What came of one test in a virtual machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    test: str
    outcome: str  # passed, failed, skipped
    seconds: float
    text: str  # why, unless it passed

    @property
    def file(self) -> str:
        return self.test.partition("::")[0]
