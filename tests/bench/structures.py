# SPDX-License-Identifier: Apache-2.0
"""Structures that addresses can be looked up in, side by side: ours, those that were weighed against it, and the
kernel's LPM trie with a hash of single addresses. In turns, less the loop; and what each takes a prefix.

Ours is timed as a whole classification, from the policy's header to a rule; the others as a look-up alone. Must not
know how they are laid out, or how results are shown.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import build, rival_tables
from bench.lookup import FAMILIES, Case, in_force, prefix_case, warm
from bench.lookups import IDLE, KEYS, WAYS, Lookups
from bench.prefixes import Prefix, random_prefixes, real_prefixes
from bench.tries import Tries
from cgnetd.datapath.addresses import V4, V6, Pieces
from cgnetd.datapath.tables import table_cells
from pybpf import Map, MapFlag, MapType

PREFIXES = (1_000, 10_000, 100_000, 1_000_000)
PROGRAMS = {
    "indexes": WAYS["classified"],
    "root": "structures_bisected",
    "trie": "structures_walked",
    "lpm": WAYS["lpm"],
}
_CELL = 8


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """Rows of nanoseconds and of bytes a prefix, by list and structure."""
    objects, own = build.objects(scratch), build.own("structures", scratch)
    rows: list[dict[str, Any]] = []
    for what, prefixes in _lists():
        case = prefix_case(what, prefixes[0][0], prefixes)
        rows += _rows(objects, own, case, rounds)
    return {"rounds": rounds, "keys": KEYS, "rows": rows}


def _lists() -> Iterator[tuple[str, Sequence[Prefix]]]:
    for family in FAMILIES:
        for count in PREFIXES:
            yield "random prefixes", random_prefixes(family, count)
        yield "real prefixes", real_prefixes(family)


def _rows(objects: Path, own: Path, case: Case, rounds: int) -> Iterator[dict[str, Any]]:
    starts, answers = rival_tables.pieces(case.prefixes)
    ours, _ = table_cells(V4 if case.family == 4 else V6, Pieces(starts, answers), 0)
    root = rival_tables.rooted(case.family, starts, answers)
    trie = rival_tables.trie(case.family, starts, answers)
    with ExitStack() as stack:
        enforcement, about = stack.enter_context(in_force(objects, case))
        tries = stack.enter_context(Tries(case.prefixes))
        maps = {
            "structures_root": stack.enter_context(_laid_out("root", root)),
            "structures_trie": stack.enter_context(_laid_out("trie", trie)),
        }
        lookups = stack.enter_context(Lookups(own, enforcement.store, tries.maps | maps, 0))
        sizes = {name: len(cells) * _CELL for name, cells in (("indexes", ours), ("root", root), ("trie", trie))}
        sizes["lpm"] = tries.kernel_kib() * 1024
        per_prefix = {name: round(size / len(case.prefixes), 1) for name, size in sizes.items()}
        for keys, expected in (("hit", KEYS), ("miss", 0)):
            lookups.set_keys(case.family, case.keys[keys])
            _check(lookups, expected)
            yield {**about, "keys": keys, "ns": _times(lookups, rounds), "bytes_a_prefix": per_prefix}


@contextmanager
def _laid_out(name: str, cells: array[int]) -> Iterator[Map]:
    with Map.create(
        MapType.ARRAY, name, key_size=4, value_size=_CELL, max_entries=len(cells), flags=MapFlag.MMAPABLE
    ) as made:
        with made.mmap(writable=True) as memory:
            memory.bytes[: len(cells) * _CELL] = cells.tobytes()
        yield made


def _check(lookups: Lookups, expected: int) -> None:
    """That all say the same of what is timed: ours gives references, from 2 on or 1, the others 1 or 0."""
    for name, program in PROGRAMS.items():
        assert lookups.sum_of(program) == expected + (KEYS if name == "indexes" else 0), name


def _times(lookups: Lookups, rounds: int) -> dict[str, float]:
    turns = [{program: warm(lookups, program) for program in (IDLE, *PROGRAMS.values())} for _ in range(rounds)]
    floor = min(turn[IDLE] for turn in turns)
    return {name: round(min(turn[program] for turn in turns) - floor, 1) for name, program in PROGRAMS.items()}
