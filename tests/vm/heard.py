# SPDX-License-Identifier: Apache-2.0
"""What came of a run of the selection on one kernel, as far as its guest has told. Must not know where the guest is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from vm.outcome import Outcome


@dataclass(slots=True)
class Run:
    """`kernel`: as of `uname -r`; `build`: as of `uname -v`."""

    kernel: str = ""
    build: str = ""
    capabilities: dict[str, bool] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    started: str = ""  # the test that runs
    exit_code: int | None = None

    def hear(self, line: str) -> None:
        """A line of the guest's, printed too. Ignores what is not of the protocol: a kernel may write to any line."""
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if "kernel" in told:
            self.kernel, self.build, self.capabilities = told["kernel"], told["build"], told["capabilities"]
            print(f"Linux {self.kernel}; lacks {', '.join(self.lacking()) or 'nothing'}", flush=True)
        elif "start" in told:
            self.started = told["start"]
        elif "test" in told:
            self.outcomes.append(Outcome(**told))
            print(f"{told['outcome']:>8} {told['seconds']:7.2f} s  {told['test']}", flush=True)
        elif "exit" in told:
            self.exit_code = told["exit"]

    def lacking(self) -> list[str]:
        return [name for name, has in self.capabilities.items() if not has]

    def of(self, outcome: str) -> list[Outcome]:
        return [one for one in self.outcomes if one.outcome == outcome]

    @property
    def good(self) -> bool:
        return self.exit_code == 0 and not self.of("failed") and bool(self.of("passed"))
