# SPDX-License-Identifier: Apache-2.0
"""What a verdict adds to a socket call: an ungoverned cgroup, 1 rule and 1,000 rules, against two baselines.

"none" is a host without any program, "empty" one with a program that does nothing: what the kernel takes for calling it
is the floor for every policy. Programs are loaded anew in each round, at another place: a few places are slow, as they
share the processor's branch prediction with functions of the kernel on the way of a call (ADR 0003), and which ones is
drawn by every boot of a kernel that randomises its addresses. Must not know how results are shown.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench import build
from bench.floor import EmptyPrograms, neighbours
from bench.turns import Worker, paired
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.state import hooks_in_force
from cgnetd.kernel import features
from cgnetd.kernel.hooks import HOOKS
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf import BpfError, Program, ProgType
from support import native, sandbox
from support.enforce import Enforcement

NONE, EMPTY = "none", "empty"
CGROUPS = {NONE: "none", EMPTY: "empty", "ungoverned": "free", "1 rule": "one", "1000 rules": "many"}  # by setting
OPERATIONS = {  # name -> calls a turn; with a 6: IPv6
    **{f"{name}{family}": 20_000 for name in ("sendto", "sendto-drained", "send", "connect") for family in ("", "6")},
    **{f"{name}{family}": 1_000 for name in ("tcp", "bind") for family in ("", "6")},
}
PARTS = 5  # of a turn, some milliseconds each: the best one is the one that nothing of the host came between
FIRST_PORT = 21_000
_HEAD = "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  subject: {{cgroups: [/{name}]}}\n"


def policies() -> bytes:
    """One rule a section in `one`, a thousand in `many`: the last one is what allows."""
    return (_policy("one", 0) + "---\n" + _policy("many", 999)).encode()


def _policy(name: str, denials: int) -> str:
    return _HEAD.format(name=name) + _section("egress", "to", denials) + _section("bind", "addresses", denials)


def _section(section: str, addresses: str, denials: int) -> str:
    rules = "".join(
        f'    - {{action: deny, {addresses}: [10.{n // 256}.{n % 256}.0/24, "fd00:0:{n:x}::/48"],'
        f" ports: [{1 + n * 7}-{6 + n * 7}]}}\n"
        for n in range(denials)
    )
    return f'  {section}:\n{rules}    - {{action: allow, {addresses}: [127.0.0.0/8, "::1"]}}\n'


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """By operation and setting: nanoseconds a call (median of the turns' bests), and the paired ratios to both."""
    foreign = foreign_programs()
    result = parse([Source("bench.yaml", policies())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    image = compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)
    program = native.build("bench", scratch)
    with ExitStack() as stack:
        stack.enter_context(neighbours())
        cgroup = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        enforcement = stack.enter_context(Enforcement(cgroup.path, pins / "cgnetd", build.objects(scratch)))
        workers = {
            setting: stack.enter_context(Worker([program, cgroup.child(name).path, str(FIRST_PORT + number)]))
            for number, (setting, name) in enumerate(CGROUPS.items())
        }
        enforcement.load(image)
        turns = []
        for _ in range(rounds):
            stack.enter_context(neighbours())  # all programs of the round are loaded behind them
            with EmptyPrograms(cgroup.path) as empty:
                turns.append(_round(enforcement, empty, workers))
    operations = {name: _summary([turn[name] for turn in turns]) for name in OPERATIONS}
    return {"rounds": rounds, "foreign_programs": foreign, "operations": operations}


def _round(enforcement: Enforcement, empty: EmptyPrograms, workers: dict[str, Worker]) -> dict[str, dict[str, float]]:
    hooks = needed_hooks(enforcement.image)
    found: dict[str, dict[str, float]] = {name: {} for name in OPERATIONS}
    for setting, worker in workers.items():
        with _attached(setting, enforcement, hooks, empty):
            for name, count in OPERATIONS.items():
                worker.turn(name, count // 10)
                found[name][setting] = min(worker.turn(name, count // PARTS) for _ in range(PARTS))
    return found


@contextmanager
def _attached(setting: str, enforcement: Enforcement, hooks: frozenset[str], empty: EmptyPrograms) -> Iterator[None]:
    if setting in (NONE, EMPTY):
        enforcement.links.detach(HOOKS)
    else:
        enforcement.links.attach(hooks)
    with empty.attached() if setting == EMPTY else nullcontext():
        yield


def _summary(turns: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    return {
        setting: {
            "ns": round(statistics.median(turn[setting] for turn in turns), 1),
            "to_none": paired(turns, setting, NONE),
            "to_empty": paired(turns, setting, EMPTY),
        }
        for setting in CGROUPS
    }


def needed_hooks(image: Image) -> frozenset[str]:
    """What a daemon would attach for the image on this kernel."""
    return hooks_in_force(image.index) - features.probe().lacking_hooks()


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
