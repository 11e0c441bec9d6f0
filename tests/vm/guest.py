# SPDX-License-Identifier: Apache-2.0
"""Inside a virtual machine: runs the selected tests and tells of each as it goes, a line of JSON on /dev/ttyS1.

    {"kernel": "6.1.0-50-cloud-amd64", "capabilities": {"unix_hooks": false, ...}}     first
    {"start": TEST}                                                                    so that a hang has a name
    {"test": TEST, "outcome": "passed" | "failed" | "skipped", "seconds": S, "text": WHY}
    {"exit": CODE}                                                                     last: pytest's

`skipped` are only tests that need what this kernel lacks, by selection.NEEDS. Must not know who listens.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support import daemon, governed
from vm import selection

LINES = Path("/dev/ttyS1")
OBJECTS = Path("objects")  # built by the host: there is no clang here
_TEXT_MAX = 6000
_PATIENCE = 5  # times that of a CPU that is not emulated


class Teller:
    """A pytest plugin: what is told, what is left out, and what is given to tests instead of being built."""

    def __init__(self, descriptor: int, *, usual: bool) -> None:
        self._descriptor = descriptor
        self._usual = usual  # nobody asked for tests by name
        self._present = [name for name, has in selection.capabilities().items() if has]
        self._given = {"clang": "clang", "objects": OBJECTS.resolve()}

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

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: Any) -> object:
        if fixturedef.argname not in self._given:
            return None
        value = self._given[fixturedef.argname]
        fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
        return value

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
    descriptor = os.open(LINES, os.O_WRONLY)
    words = json.loads(Path("arguments.json").read_text(encoding="utf-8"))
    teller = Teller(descriptor, usual=not words)
    teller.tell(kernel=os.uname().release, capabilities=selection.capabilities())
    daemon.START_TIMEOUT_S *= _PATIENCE
    governed.PATIENCE_S *= _PATIENCE
    code = pytest.main(["--require-kernel", "-q", "--color=no", *(words or selection.TESTS)], plugins=[teller])
    teller.tell(exit=int(code))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
