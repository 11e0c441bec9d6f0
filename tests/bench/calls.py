# SPDX-License-Identifier: Apache-2.0
"""What a verdict adds to a socket call: no program anywhere on the host, an ungoverned cgroup, 1 rule, 1,000 rules.

One process a setting, all pinned to one CPU, take turns; a ratio compares two turns of the same round. Must not know
how results are shown.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cgnetd.datapath.compile import compile_image
from cgnetd.kernel.hooks import HOOKS
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf import BpfError, Program, ProgType
from support import native, sandbox
from support.enforce import Enforcement

BASELINE = "none"
SETTINGS = (BASELINE, "ungoverned", "1 rule", "1000 rules")
OPERATIONS = {"sendto": 20_000, "sendto-drained": 20_000, "connect": 20_000, "tcp": 1_000}  # name -> calls a turn
FIRST_PORT = 21_000
_HEAD = "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  subject: {{cgroups: [/{name}]}}\n"


class Worker:
    """A process that measures, in a cgroup of its own."""

    def __init__(self, program: Path, cgroup: Path, port: int) -> None:
        command = [str(program), str(cgroup), str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(self._process.pid, {max(os.sched_getaffinity(0))})

    def turn(self, operation: str, count: int) -> float:
        """Nanoseconds a call."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{operation} {count}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()) / count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


def policies() -> bytes:
    one = _HEAD.format(name="one") + "  egress: [{action: allow, to: [127.0.0.0/8]}]\n"
    rules = "".join(
        f"    - {{action: deny, to: [10.{n // 256}.{n % 256}.0/24], ports: [{1 + n * 7}-{6 + n * 7}]}}\n"
        for n in range(999)
    )
    many = _HEAD.format(name="many") + f"  egress:\n{rules}    - {{action: allow, to: [127.0.0.0/8]}}\n"
    return f"{one}---\n{many}".encode()


def measure(scratch: Path, objects: Path, rounds: int) -> dict[str, Any]:
    """By operation and setting: nanoseconds a call (median), the paired ratio to the baseline and its quartiles."""
    foreign = foreign_programs()
    result = parse([Source("bench.yaml", policies())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    image = compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)
    program = native.build("bench", scratch)
    with ExitStack() as stack:
        cgroup = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        places = [cgroup.child(name).path for name in ("none", "free", "one", "many")]
        enforcement = stack.enter_context(Enforcement(cgroup.path, pins / "cgnetd", objects))
        enforcement.load(image)
        workers = [stack.enter_context(Worker(program, path, FIRST_PORT + n)) for n, path in enumerate(places)]
        turns = [_round(enforcement, workers) for _ in range(rounds)]
    operations = {name: _summary([turn[name] for turn in turns]) for name in OPERATIONS}
    return {"rounds": rounds, "foreign_programs": foreign, "operations": operations}


def _round(enforcement: Enforcement, workers: list[Worker]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in OPERATIONS}
    for setting, worker in zip(SETTINGS, workers, strict=True):
        if setting == BASELINE:
            enforcement.links.detach(HOOKS)
        else:
            enforcement.links.attach(HOOKS)
        for name, count in OPERATIONS.items():
            worker.turn(name, count // 10)
            found[name][setting] = worker.turn(name, count)
    return found


def _summary(turns: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {setting: _against_baseline(turns, setting) for setting in SETTINGS}


def _against_baseline(turns: list[dict[str, float]], setting: str) -> dict[str, float]:
    ratios = [turn[setting] / turn[BASELINE] for turn in turns]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "ns": round(statistics.median(turn[setting] for turn in turns), 1),
        "ratio": round(middle, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
    }


def foreign_programs() -> int:
    """Programs on socket calls of somebody else: with any attached, the baseline is not that of a host without."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    number, count = ctypes.c_uint32(0), 0
    while libbpf.bpf_prog_get_next_id(number, ctypes.byref(number)) == 0:
        try:
            with Program.from_id(number.value) as found:
                count += found.info.type == ProgType.CGROUP_SOCK_ADDR
        except BpfError:
            continue  # gone meanwhile
    return count
