# SPDX-License-Identifier: Apache-2.0
"""Writes a page with plots from the results of a run. Needs matplotlib; measures nothing, and needs no privilege.

page.py RESULTS.json DIRECTORY    writes results.md, the plots, and a copy of the results as results.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TESTS_PATH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS_PATH), str(TESTS_PATH.parent / "daemon")]

from bench import page_calls, page_sizes  # noqa: E402
from bench.doubts import doubts  # noqa: E402
from bench.figures import Curves, Spreads  # noqa: E402
from bench.goals import ANSWERS, goals  # noqa: E402
from bench.markdown import table  # noqa: E402
from bench.plots import draw  # noqa: E402

_HEAD = """\
<!-- SPDX-License-Identifier: Apache-2.0 -->
# Results

Written by `make bench-page` from `results.json`, which `make bench` wrote: not to be edited. What is measured, and
how, is said in [README.md](README.md).
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    args = parser.parse_args()
    found = json.loads(args.results.read_text(encoding="utf-8"))
    args.directory.mkdir(parents=True, exist_ok=True)
    write(found, args.directory)
    return 0


def write(found: Mapping[str, Any], directory: Path) -> None:
    """The page, a plot for each that the results have the numbers of, and the results."""
    plots: dict[str, Curves | Spreads] = {**page_sizes.plots(found), **page_calls.plots(found)}
    for name, plot in plots.items():
        draw(plot, directory / f"{name}.svg")
    text = "\n".join([_HEAD, *_machine(found["machine"]), *_goals(found), *page_sizes.sections(found, plots)])
    text = "\n".join([text, *page_calls.sections(found, plots)])
    (directory / "results.md").write_text(f"{text.rstrip()}\n", encoding="utf-8")
    (directory / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    kind = "a virtual machine" if machine["virtual"] else "a machine"
    yield (
        f"Linux {machine['kernel']} {machine['architecture']}, {kind} with {machine['cpus']} CPUs ({machine['cpu']}, "
        f"{machine['mhz']} MHz; {caches}), {machine['memory_mib']} MiB; Python {machine['python']}, "
        f"{machine['clang']}, {machine['nft']}. All of it took {machine['seconds']} s.\n"
    )
    yield from (f"* {line}" for line in doubts(machine))
    yield ""


def _goals(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [[goal.name, goal.limit, goal.measured, ANSWERS[goal.reached]] for goal in goals(found)]
    if rows:
        yield "## Goals\n"
        yield table(["goal", "limit", "measured", ""], rows)


if __name__ == "__main__":
    sys.exit(main())
