# SPDX-License-Identifier: Apache-2.0
"""The sendmsg4 program by itself, timed by the kernel (kernel.bpf_stats_enabled, which adds about 20 ns a run).

Must not know how results are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import build
from bench.calls import FIRST_PORT, policies
from bench.floor import neighbours
from bench.turns import Worker
from cgnetd.datapath.compile import compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf import Program
from support import native, sandbox
from support.enforce import Enforcement

CGROUPS = {"ungoverned": "free", "1 rule": "one", "1000 rules": "many"}
CALLS = 20_000
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """Nanoseconds a run by setting: the best of `rounds` turns, and their median."""
    result = parse([Source("bench.yaml", policies())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    image = compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)
    binary = native.build("bench", scratch)
    with ExitStack() as stack:
        stack.enter_context(neighbours())
        root = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        places = [root.child(name).path for name in CGROUPS.values()]
        enforcement = stack.enter_context(Enforcement(root.path, pins / "cgnetd", build.objects(scratch)))
        enforcement.load(image)
        workers = [
            stack.enter_context(Worker([binary, path, str(FIRST_PORT + number)])) for number, path in enumerate(places)
        ]
        prog_id = enforcement.links.observe(["sendmsg4"])["sendmsg4"].prog_id
        stack.enter_context(_timed())
        turns = [[_turn(prog_id, worker) for worker in workers] for _ in range(rounds)]
    return {
        setting: {"best": round(min(times), 1), "median": round(statistics.median(times), 1)}
        for setting, times in zip(CGROUPS, zip(*turns, strict=True), strict=True)
    }


def _turn(prog_id: int, worker: Worker) -> float:
    ns_before, runs_before = _run_time(prog_id)
    worker.turn("sendto", CALLS)
    ns, runs = _run_time(prog_id)
    return (ns - ns_before) / (runs - runs_before)


def _run_time(prog_id: int) -> tuple[int, int]:
    with Program.from_id(prog_id) as program:
        return program.info.run_time_ns, program.info.run_count


@contextmanager
def _timed() -> Iterator[None]:
    before = _STATS.read_text(encoding="ascii")
    _STATS.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        _STATS.write_text(before, encoding="ascii")
