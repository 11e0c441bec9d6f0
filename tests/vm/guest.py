# SPDX-License-Identifier: Apache-2.0
"""Where the kernel is: runs the selected tests and tells of each as it goes, a line of JSON.

    python -m vm.guest LINES WORDS [--patience FACTOR]

LINES is a file to write to, WORDS one with a JSON list: pytest's arguments, none for the whole selection.

    {"kernel": "6.1.0-50-cloud-amd64", "build": "#1 SMP ...", "capabilities": {"unix_hooks": false, ...}}     first
    {"start": TEST}                                                                       so that a hang has a name
    {"test": TEST, "outcome": "passed" | "failed" | "skipped", "seconds": S, "text": WHY}
    {"exit": CODE}                                                                        last: pytest's

`skipped` are only tests that need what this kernel lacks, by selection.NEEDS. Must not know who listens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support import daemon, governed
from vm import selection
from vm.capabilities import capabilities

_TEXT_MAX = 6000


class Teller:
    """A pytest plugin: what is told, and what is left out."""

    def __init__(self, descriptor: int, found: dict[str, bool], *, usual: bool) -> None:
        self._descriptor = descriptor
        self._usual = usual  # nobody asked for tests by name
        self._present = [name for name, has in found.items() if has]

    def tell(self, **what: Any) -> None:
        raw = (json.dumps(what) + "\n").encode()
        while raw:
            raw = raw[os.write(self._descriptor, raw) :]

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = []
        for item in items:
            if self._usual and selection.left_out(item.nodeid):
                continue
            lacking = selection.lacking(item.nodeid, self._present)
            if lacking:
                self.tell(test=item.nodeid, outcome="skipped", seconds=0, text=f"lacks {', '.join(lacking)}")
            else:
                kept.append(item)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(start=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            text = report.longreprtext[-_TEXT_MAX:] if report.failed else str(report.longrepr or "")
            name = report.nodeid if report.when == "call" else f"{report.nodeid} ({report.when})"
            self.tell(test=name, outcome=report.outcome, seconds=round(report.duration, 2), text=text)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tell(test=report.nodeid, outcome="failed", seconds=0, text=report.longreprtext[-_TEXT_MAX:])


def main() -> int:
    parser = argparse.ArgumentParser(prog="vm.guest", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("lines", type=Path)
    parser.add_argument("words", type=Path)
    parser.add_argument("--patience", type=int, default=1, help="how much longer than usual things may take here")
    args = parser.parse_args()
    words = json.loads(args.words.read_text(encoding="utf-8"))
    found = capabilities()
    teller = Teller(os.open(args.lines, os.O_WRONLY | os.O_APPEND), found, usual=not words)
    kernel = os.uname()
    teller.tell(kernel=kernel.release, build=kernel.version, capabilities=found)
    daemon.START_TIMEOUT_S *= args.patience
    governed.PATIENCE_S *= args.patience
    code = pytest.main(["--require-kernel", "-q", "--color=no", *(words or selection.TESTS)], plugins=[teller])
    teller.tell(exit=int(code))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
