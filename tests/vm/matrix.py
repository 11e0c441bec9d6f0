# SPDX-License-Identifier: Apache-2.0
"""Writes docs/kernels.md from the records of runs: what works on which kernel, and what is lost without it.

    python -m vm.matrix [RECORD...]        default: the last whole run on each kernel

Later records replace what earlier ones of the same kernel say of the same files. Same records, same page. Must not
know how runs are made.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from beds import trees
from vm import record, selection
from vm.capabilities import costs
from vm.outcome import Outcome
from vm.record import Record

TOP = Path(__file__).parent.parent.parent
PAGE = TOP / "docs" / "kernels.md"
_PACKAGE = re.compile(r"Debian (\S+)")  # in `uname -v`: the exact version of Debian's kernels
_HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
# Kernels

What works on which kernel. Written by `make kernels` from the records of the runs below, not by hand; how they are
made: [testing](testing.md).

"""
_FEATURES = """
## What a kernel offers

Found by doing, never by version. In brackets: the tests that use it and passed; where it is lacking, they passed
without it. Policies that would hold less for the lack of something are refused; those that hold, but answer otherwise,
are in force, and `cgnetctl status` warns of them.

"""
_TRIED = """
## What was tried

Tests that passed, by file; skipped are those that need what the kernel lacks.

"""


def page(records: Iterable[Record]) -> str:
    """The whole text; columns by version. ValueError if a record has no version."""
    columns = sorted(records, key=lambda one: (one.version, one.kernel))
    heads = [f"{major}.{minor}" for major, minor in (one.version for one in columns)]
    return "".join(
        (
            _HEAD,
            _table(("kernel", "release", "run", "passed", "skipped"), (_run(one) for one in columns)),
            _FEATURES,
            _table(("feature", *heads, "without it"), _feature_rows(columns)),
            _TRIED,
            _table(("what", *heads), _file_rows(columns)),
        )
    )


def _run(one: Record) -> tuple[str, ...]:
    package = _PACKAGE.search(one.build)
    release = f"{one.kernel} (Debian {package[1]})" if package else one.kernel
    counts = [str(_count(one, outcome)) for outcome in ("passed", "skipped")]
    return ".".join(map(str, one.version)), release, f"`make test-vm KERNEL={one.place}`", *counts


def _feature_rows(columns: Sequence[Record]) -> Iterable[tuple[str, ...]]:
    for name, cost in costs().items():
        yield f"`{name}`", *(_feature(one, name) for one in columns), cost


def _feature(one: Record, name: str) -> str:
    if name not in one.capabilities:
        return "not looked for"
    passed = _count(one, "passed", lambda test: name in selection.used(test))
    return ("works" if one.capabilities[name] else "lacking") + (f" ({passed})" if passed else "")


def _file_rows(columns: Sequence[Record]) -> Iterable[tuple[str, ...]]:
    for name in dict.fromkeys(_file(test) for test in selection.TESTS):
        yield f"{_subject(name)} (`{Path(name).name}`)", *(_tried(one, name) for one in columns)


def _tried(one: Record, name: str) -> str:
    passed, skipped = (_count(one, outcome, lambda test: _file(test) == name) for outcome in ("passed", "skipped"))
    return f"{passed}" + (f", {skipped} skipped" if skipped else "")


def _count(one: Record, outcome: str, of: Callable[[str], bool] = lambda _: True) -> int:
    return sum(1 for found in one.outcomes if found.outcome == outcome and of(found.test))


def _file(test: str) -> str:
    return test.partition("::")[0]


def _subject(name: str) -> str:
    """What a module of tests says that it is about."""
    words = ast.get_docstring(ast.parse((TOP / name).read_text(encoding="utf-8"))) or name
    return words.splitlines()[0].rstrip(".")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(word.replace('|', chr(92) + '|') for word in line)} |\n" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="vm.matrix", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("records", nargs="*", type=Path)
    args = parser.parse_args()
    places = (*(distro.kernel for distro in trees.DISTROS.values()), "host")
    kept = {place: record.kept_path(place) for place in places}
    missing = [place for place, path in kept.items() if not args.records and not path.exists()]
    for place in missing:
        print(f"matrix: no record of a whole run; make one: make test-vm KERNEL={place}", file=sys.stderr)
    if missing:
        return 1
    found = record.merge(record.read(path) for path in args.records or kept.values())
    failed = [f"{one.kernel}: {bad.test}" for one in found for bad in _failed(one.outcomes)]
    if failed:
        print("matrix: not from runs with failures:", *failed, sep="\n  ", file=sys.stderr)
        return 1
    PAGE.write_text(page(found), encoding="utf-8")
    return 0


def _failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.outcome == "failed"]


if __name__ == "__main__":
    sys.exit(main())
