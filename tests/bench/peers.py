# SPDX-License-Identifier: Apache-2.0
"""The same list of denied prefixes in force by each of those that can, and what calls cost that it does not deny.

Each setting has a network namespace, a cgroup and a process of its own; the programs of ours and of the bench are
attached in their own turns only. Landlock knows no addresses: it gets as many allowed ports, and takes part in
connects alone. Must not know how results are shown.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import build, denylist, netfilter
from bench.calls import foreign_programs, needed_hooks
from bench.floor import EmptyPrograms, neighbours
from bench.prefixes import Prefix
from bench.tries import GROUP, Tries
from bench.turns import Worker, paired
from cgnetd.datapath.compile import compile_image
from cgnetd.kernel.cgroup import find_root
from cgnetd.kernel.hooks import HOOKS
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf import AttachType, Link, Object, ProgType
from support import native, sandbox
from support.enforce import Enforcement
from support.netns import private_netns
from support.sandbox import PrivateCgroup

SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
NONE, EMPTY, OURS, LPM = "none", "empty", "cgnetd", "lpm program"
NFT_RULES, NFT_SET, IPTABLES, LANDLOCK = "nftables rules", "nftables set", "iptables", "landlock"
OPERATIONS = ("sendto", "spread", "refused")
_MOST_PORTS = 65_000
_PORT = 21_000
_PART_NS = 4e6  # how long a part of a turn may take
_MOST_CALLS = 5_000
_PARTS = 5
_LPM_PROGRAMS = {"peer_connect4": AttachType.CGROUP_INET4_CONNECT, "peer_sendmsg4": AttachType.CGROUP_UDP4_SENDMSG}


@dataclass(frozen=True, slots=True)
class Side:
    """A setting, ready: its process, what it does, and what puts it in force for a turn."""

    worker: Worker
    operations: tuple[str, ...] = OPERATIONS
    attached: Callable[[], AbstractContextManager[object]] = nullcontext


def measure(scratch: Path, rounds: int, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Rows by size, setting and operation: nanoseconds a call (median), paired ratios to no program and to ours."""
    foreign = foreign_programs()
    rows = []
    with ExitStack() as stack:
        stack.enter_context(neighbours())
        bench = Bench(stack, scratch)
        for number, size in enumerate(sizes):
            with ExitStack() as loaded:
                sides = bench.sides(loaded, size, number + 1)
                rows += _rows(size, sides, rounds)
    return {"rounds": rounds, "foreign_programs": foreign, "missing": netfilter.lacking(), "rows": rows}


class Bench:
    """What all sizes share: a cgroup tree, the enforcement over it, and what was built."""

    def __init__(self, stack: ExitStack, scratch: Path) -> None:
        self._tree = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        self._program = native.build("peer", scratch)
        self._lpm_object = build.own("peer", scratch)
        for name in ("none", "empty", "cgnetd", "lpm", "nft-rules", "nft-set", "iptables", "landlock"):
            self._tree.child(name)
        self._enforcement = stack.enter_context(Enforcement(self._tree.path, pins / "cgnetd", build.objects(scratch)))
        self._empty = stack.enter_context(EmptyPrograms(self._tree.path))
        self._enforcement.links.detach(HOOKS)

    def sides(self, stack: ExitStack, size: int, generation: int) -> dict[str, Side]:
        """Every setting with a list of that size; the programs that are missing leave theirs out."""
        prefixes, missing = denylist.listed(size), netfilter.lacking()
        found = {
            NONE: Side(self._worker(stack, "none")),
            EMPTY: Side(self._worker(stack, "empty"), attached=self._empty.attached),
            OURS: self._ours(stack, prefixes, generation),
            LPM: self._lpm(stack, prefixes),
        }
        if "nftables" not in missing:
            found[NFT_RULES] = self._netfilter(stack, "nft-rules", denylist.nft_rules, prefixes)
            found[NFT_SET] = self._netfilter(stack, "nft-set", denylist.nft_set, prefixes)
        if "iptables" not in missing:
            found[IPTABLES] = self._netfilter(stack, "iptables", denylist.iptables, prefixes)
        if size <= _MOST_PORTS:
            found[LANDLOCK] = Side(self._worker(stack, "landlock", ports=size), ("refused",))
        return found

    def _worker(self, stack: ExitStack, name: str, network: Path | None = None, ports: int = 0) -> Worker:
        path = network or stack.enter_context(private_netns()).path
        command: list[str | Path] = ["nsenter", f"--net={path}", self._program, self._tree.child(name).path, str(_PORT)]
        return stack.enter_context(Worker([*command, *([str(ports)] if ports else [])]))

    def _ours(self, stack: ExitStack, prefixes: tuple[Prefix, ...], generation: int) -> Side:
        source = Source("bench.yaml", denylist.as_rules(prefixes, "cgnetd"))
        result = parse([source], read_set=lambda _: b"", find_user=lambda _: 0)
        assert result.policy_set, result.problems
        image = compile_image(result.policy_set, default_action=Action.ALLOW, generation=generation)
        self._enforcement.load(image)
        self._enforcement.links.detach(HOOKS)
        hooks = needed_hooks(image)

        @contextmanager
        def attached() -> Iterator[None]:
            self._enforcement.links.attach(hooks)
            yield
            self._enforcement.links.detach(HOOKS)

        return Side(self._worker(stack, "cgnetd"), attached=attached)

    def _lpm(self, stack: ExitStack, prefixes: tuple[Prefix, ...]) -> Side:
        cgroup = self._tree.child("lpm")
        tries = stack.enter_context(Tries(prefixes))
        with Object(self._lpm_object) as opened:
            for name, shared in tries.maps.items():
                opened.maps[name].reuse(shared)
            for name, kind in _LPM_PROGRAMS.items():
                opened.programs[name].set_type(ProgType.CGROUP_SOCK_ADDR, kind)
            opened.load()
            with opened.maps["peer_groups"].open() as groups:
                groups.update(struct.pack("=Q", cgroup.id), struct.pack("=I", GROUP))
            programs = {kind: stack.enter_context(opened.programs[name].open()) for name, kind in _LPM_PROGRAMS.items()}
        at = os.open(self._tree.path, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, at)

        @contextmanager
        def attached() -> Iterator[None]:
            with ExitStack() as links:
                for kind, program in programs.items():
                    links.enter_context(Link.attach_cgroup(program, at, kind))
                yield

        return Side(self._worker(stack, "lpm"), attached=attached)

    def _netfilter(
        self,
        stack: ExitStack,
        name: str,
        says: Callable[[tuple[Prefix, ...], str], str],
        prefixes: tuple[Prefix, ...],
    ) -> Side:
        network = stack.enter_context(private_netns())
        command = netfilter.iptables_command(network) if name == "iptables" else netfilter.nft_command(network)
        netfilter.load(command, says(prefixes, relative(self._tree.child(name))))
        return Side(self._worker(stack, name, network.path))


def relative(cgroup: PrivateCgroup) -> str:
    """Its path below the root of the hierarchy, as netfilter's tools want it."""
    return os.fspath(cgroup.path.relative_to(find_root()))


def _rows(size: int, sides: dict[str, Side], rounds: int) -> list[dict[str, Any]]:
    names, turns = list(sides), []
    counts = _calibrate(sides, denylist.listed(size))
    with ExitStack() as places:
        for number in range(rounds):
            places.enter_context(neighbours())  # our programs, loaded in each turn, come to lie behind them
            at = number % len(names)  # what comes first changes
            turns.append(_round(sides, names[at:] + names[:at], counts))
    return [
        {
            "size": size,
            "setting": name,
            "operation": operation,
            "ns": round(median(turn[operation][name] for turn in turns), 1),
            "to_none": paired([turn[operation] for turn in turns], name, NONE),
            "to_cgnetd": paired([turn[operation] for turn in turns], name, OURS),
        }
        for name, side in sides.items()
        for operation in side.operations
    ]


def check(worker: Worker, prefixes: tuple[Prefix, ...]) -> None:
    """That the list is in force. The process ends, and RuntimeError, if it is not."""
    for address in denylist.samples(prefixes):
        worker.turn("denied", address)


def _calibrate(sides: dict[str, Side], denied: tuple[Prefix, ...]) -> dict[tuple[str, str], int]:
    """How many calls a part of a turn makes; first that the list is in force."""
    counts = {}
    for name, side in sides.items():
        with side.attached():
            if name not in (NONE, EMPTY, LANDLOCK):
                check(side.worker, denied)
            for operation in side.operations:
                counts[name, operation] = calls_that_fit(side.worker, operation)
    return counts


def calls_that_fit(worker: Worker, operation: str) -> int:
    """How many calls one part of a turn should make."""
    return max(2, min(_MOST_CALLS, int(_PART_NS / worker.turn(operation, 5))))


def _round(sides: dict[str, Side], order: list[str], counts: dict[tuple[str, str], int]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {operation: {} for operation in OPERATIONS}
    for name in order:
        side = sides[name]
        with side.attached():
            for operation in side.operations:
                count = counts[name, operation]
                side.worker.turn(operation, max(1, count // 5))
                found[operation][name] = min(side.worker.turn(operation, count) for _ in range(_PARTS))
    return found
