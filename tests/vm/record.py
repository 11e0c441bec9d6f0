# SPDX-License-Identifier: Apache-2.0
"""The record of a run: a JSON file for whoever writes down what works where. Must not know what is written.

{"place": "6.1" | "host", "kernel": RELEASE, "build": UNAME_V, "capabilities": {NAME: BOOL},
 "tests": [{"test": ID, "outcome": "passed" | "failed" | "skipped", "seconds": S, "text": WHY, "uses": [NAME]}]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from beds import cache
from vm import selection
from vm.outcome import Outcome

_NAMES = ("place", "kernel", "build", "capabilities")
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Record:
    """`place`: the argument of vm.run; `kernel` as of `uname -r`, `build` as of `uname -v`."""

    place: str
    kernel: str
    build: str
    capabilities: Mapping[str, bool]
    outcomes: Sequence[Outcome]

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor. ValueError if the release does not begin with them."""
        found = _VERSION.match(self.kernel)
        if not found:
            raise ValueError(f"not the release of a kernel: {self.kernel!r}")
        return int(found[1]), int(found[2])


def kept_path(place: str) -> Path:
    """Where the last whole run there is kept."""
    return cache.directory() / "records" / f"linux-{place}.json"


def write(path: Path, record: Record) -> None:
    """Replace `path`, whole. OSError."""
    tests = [asdict(one) | {"uses": selection.used(one.test)} for one in record.outcomes]
    told = {name: getattr(record, name) for name in _NAMES} | {"tests": tests}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    fresh.rename(path)


def merge(records: Iterable[Record]) -> tuple[Record, ...]:
    """One a kernel, in order of appearance: of a file of tests, the last record that has any of it counts."""
    found: dict[tuple[str, str], Record] = {}
    for one in records:
        before = found.get((one.place, one.kernel))
        fresh = {outcome.file for outcome in one.outcomes}
        kept = [outcome for outcome in before.outcomes if outcome.file not in fresh] if before else []
        found[one.place, one.kernel] = replace(one, outcomes=(*kept, *one.outcomes))
    return tuple(found.values())


def read(path: Path) -> Record:
    """OSError, ValueError."""
    told = json.loads(path.read_text(encoding="utf-8"))
    try:
        fields = ("test", "outcome", "seconds", "text")
        outcomes = tuple(Outcome(*(one[name] for name in fields)) for one in told["tests"])
        place, kernel, build, capabilities = (told[name] for name in _NAMES)
        return Record(place, kernel, build, capabilities, outcomes)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a record of a run: {error!r}") from error
