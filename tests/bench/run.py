# SPDX-License-Identifier: Apache-2.0
"""Prints what enforcement costs, as text or as JSON. Needs root; all parts together take at most 20 minutes.

What is compared is measured in the same run, in turns, because machines drift.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS_PATH = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS_PATH))

from bench import (  # noqa: E402
    build,
    calls,
    curves,
    daemon,
    lookup,
    machine,
    peers,
    peers_systemd,
    programs,
    redirect,
    scale,
    stall,
    storm,
    structures,
    tables,
    verdicts,
)

BUDGET_S = 20 * 60


@dataclass(frozen=True, slots=True)
class Part:
    """`measure` is given a directory for whatever it makes, and the number of turns. `seconds`: what it took on a
    machine with two CPUs, with its own number of turns; `rounds`: 0 if it has no turns."""

    about: str
    seconds: int
    rounds: int
    measure: Callable[[Path, int], object]


PARTS = {
    "lookup": Part("a look-up, by size, beside the kernel's LPM trie", 180, 15, lookup.measure),
    "structures": Part("a look-up of an address, by structure", 270, 9, structures.measure),
    "calls": Part("system calls, beside no program and an empty one", 60, 21, calls.measure),
    "peers": Part("calls under a list that nftables, iptables, Landlock and others have too", 240, 9, peers.measure),
    "systemd": Part("the same list as IPAddressDeny= of a unit", 90, 9, peers_systemd.measure),
    "curves": Part("loading that list, and the memory it takes, firewalld too", 240, 3, curves.measure),
    "storm": Part("denied calls a second, and what the daemon makes of them", 30, 5, storm.measure),
    "redirect": Part("being sent elsewhere, beside DNAT and a proxy", 45, 21, redirect.measure),
    "programs": Part("sendmsg4 as the kernel times it", 10, 15, programs.measure),
    "verdicts": Part(
        "a verdict by the number of policies asked", 20, 0, lambda s, _: verdicts.measure(build.objects(s))
    ),
    "reload": Part("a reload of 10,000 rules", 30, 0, lambda s, _: daemon.measure_reload(s, build.objects(s))),
    "scale": Part(
        "10,000 cgroups, 1,000 policies, a million prefixes: changes and what is left alone",
        80,
        9,
        lambda s, rounds: scale.measure(s, build.objects(s), rounds),
    ),
    "stall": Part(
        "what freeing a generation of a million prefixes keeps a CPU from",
        50,
        9,
        lambda s, rounds: stall.measure(s, build.objects(s), rounds),
    ),
    "idle": Part("a daemon that has nothing to do", 30, 0, lambda s, _: daemon.measure_idle(s, build.objects(s), 20.0)),
}


def main() -> int:
    args = _arguments()
    if args.list:
        print("\n".join(f"{name:<10} {part.about}, {part.seconds} s" for name, part in PARTS.items()))
        return 0
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 4
    found = measure(args.only or list(PARTS), args.rounds)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2) if args.json else tables.text(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="the names of the parts, and nothing else")
    parser.add_argument("--only", action="append", choices=list(PARTS), metavar="NAME", help="this part; repeatable")
    parser.add_argument("--rounds", type=int, help="turns of what is measured in turns; each part has its own default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results there too, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser.parse_args()


def measure(names: Sequence[str], rounds: int | None) -> dict[str, Any]:
    """The results of the parts by name; "left_out": those that would not have ended in time."""
    began = time.monotonic()
    found: dict[str, Any] = {"machine": machine.describe()}
    left_out = []
    with tempfile.TemporaryDirectory(prefix="cgnetd-bench-") as directory:
        for name in names:
            part = PARTS[name]
            if time.monotonic() - began + part.seconds > BUDGET_S:
                left_out.append(name)
                continue
            print(f"bench: {name}: {part.about}", file=sys.stderr, flush=True)
            found[name] = part.measure(Path(directory), part.rounds and (rounds or part.rounds))
    found["machine"] |= {"seconds": round(time.monotonic() - began), "left_out": left_out}
    return found


if __name__ == "__main__":
    sys.exit(main())
