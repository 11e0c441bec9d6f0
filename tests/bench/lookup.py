# SPDX-License-Identifier: Apache-2.0
"""What one look-up takes, by size: our classification, our whole verdict, and the kernel's hash and LPM trie.

Each row is 65,536 keys in a run, all ways in turns, less what the loop over the keys takes by itself. Each look-up
waits for the answer of the one before, as calls do; it makes little difference. No CPU remembers any of it (ADR 0003),
and caches are as warm as so many keys leave them. Must not know how results are shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import build, rulesets
from bench.lookups import IDLE, KEYS, WAYS, Key, Lookups
from bench.prefixes import Prefix, inside, outside, random_prefixes, real_prefixes, text
from bench.tries import Tries
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.label import Label, pack_entry, pack_label
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import sandbox
from support.enforce import Enforcement

FAMILIES = (4, 6)
PREFIXES = (1_000, 10_000, 100_000, 1_000_000)
RULES = (1, 10, 100, 1_000, 10_000)
BOTH = (100_000, 10_000)  # prefixes in a set, and rules behind it
_GOVERNED = 1 << 40  # the id of no cgroup
_SET = (
    "apiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {name: listed}\nspec: {files: [/listed.txt]}\n---\n"
    + rulesets.HEAD.format(name="p")
    + '  egress:\n    - {action: deny, log: false, to: ["set:listed"]}\n'
)


@dataclass(frozen=True, slots=True)
class Case:
    """A policy, and keys by what becomes of them. `prefixes`: what others can hold of it too."""

    what: str
    size: int
    family: int
    policy: str
    prefixes: Sequence[Prefix]
    keys: dict[str, list[Key]]


def measure(scratch: Path, rounds: int) -> dict[str, Any]:
    """Rows of nanoseconds by case, keys and way; and what the programs are."""
    objects, own = build.objects(scratch), build.own("lookup", scratch)
    rows: list[dict[str, Any]] = []
    instructions: dict[str, Any] = {}
    for case in _cases():
        with (
            in_force(objects, case) as (enforcement, about),
            Tries(case.prefixes) as tries,
            Lookups(own, enforcement.store, tries.maps, _GOVERNED) as lookups,
        ):
            instructions = _instructions(lookups)
            rows += [{**about, "keys": keys, "ns": _times(case, keys, lookups, rounds)} for keys in case.keys]
    return {"rounds": rounds, "keys": KEYS, "programs": instructions, "rows": rows}


def _cases() -> Iterator[Case]:
    for family in FAMILIES:
        for count in PREFIXES:
            yield prefix_case("random prefixes", family, random_prefixes(family, count))
        yield prefix_case("real prefixes", family, real_prefixes(family))
        for count in RULES:
            yield _rule_case("rules", family, count, ())
        yield _rule_case("prefixes and rules", family, BOTH[1], random_prefixes(family, BOTH[0]))


def prefix_case(what: str, family: int, prefixes: Sequence[Prefix]) -> Case:
    keys = {"hit": inside(prefixes, KEYS), "miss": outside(prefixes, KEYS)}
    asked = {name: [(address, 443) for address in found] for name, found in keys.items()}
    return Case(what, len(prefixes), family, _SET, prefixes, asked)


def _rule_case(what: str, family: int, count: int, listed: Sequence[Prefix]) -> Case:
    """Keys are the rules'; the set, if there is one, stands before them."""
    rules = rulesets.rules(family, count)
    policy = rulesets.policy("p", rules)
    if listed:
        policy = _SET + policy.partition("egress:\n")[2]
    keys = {"hit": rulesets.matching(rules, KEYS), "miss": rulesets.matching_none(rules, KEYS, listed)}
    return Case(what, count, family, policy, listed, keys)


@contextmanager
def in_force(objects: Path, case: Case) -> Iterator[tuple[Enforcement, dict[str, Any]]]:
    """The case's policy, and the label of a cgroup that need not be there; and what there is to say of it."""
    began = time.monotonic()
    image = _image(case)
    about = {"what": case.what, "size": case.size, "family": case.family, "image_bytes": image.sizes.bytes}
    about["build_ms"] = round((time.monotonic() - began) * 1e3, 1)
    with ExitStack() as stack:
        cgroup = stack.enter_context(sandbox.cgroup())
        pins = stack.enter_context(sandbox.bpffs_mount())
        enforcement = stack.enter_context(Enforcement(cgroup.path, pins / "cgnetd", objects))
        enforcement.put(0, image)
        enforcement.store.set_labels({_GOVERNED: pack_entry([pack_label(Label(0, (0,)), 1), None])})
        enforcement.store.activate(0)
        yield enforcement, about


def _image(case: Case) -> Image:
    source = Source("bench.yaml", case.policy.encode())
    result = parse([source], read_set=lambda _: text(case.prefixes), find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)


def _instructions(lookups: Lookups) -> dict[str, Any]:
    """Of the programs, their loop included. How many are executed no virtual machine without counters can tell."""
    infos = {name: lookups.programs[program].info for name, program in {"loop": IDLE, **WAYS}.items()}
    return {
        name: {"instructions": info.instructions, "machine_code_bytes": info.machine_code_bytes}
        for name, info in infos.items()
    }


def _times(case: Case, keys: str, lookups: Lookups, rounds: int) -> dict[str, Any]:
    ways = dict(WAYS) if case.prefixes and case.what != "prefixes and rules" else _ours()
    lookups.set_keys(case.family, case.keys[keys])
    _check(lookups, keys, ways)
    turns = [{program: warm(lookups, program) for program in (IDLE, *ways.values())} for _ in range(rounds)]
    floor = min(turn[IDLE] for turn in turns)
    return {
        way: {
            "best": round(min(turn[program] for turn in turns) - floor, 1),
            "median": round(median(turn[program] - turn[IDLE] for turn in turns), 1),
        }
        for way, program in ways.items()
    }


def warm(lookups: Lookups, program: str) -> float:
    """Nanoseconds a key, the caches as the same look-ups have left them, not those of the way before."""
    lookups.run(program)
    return lookups.run(program, repeat=2)


def _ours() -> dict[str, str]:
    return {way: program for way, program in WAYS.items() if way != "lpm"}


def _check(lookups: Lookups, keys: str, ways: dict[str, str]) -> None:
    """That what is timed gives the answers that it should: references from 2 on, or 1 for none; rules, or 0."""
    classified, judged = lookups.sum_of(WAYS["classified"]), lookups.sum_of(WAYS["judged"])
    if keys == "hit":
        assert classified >= 2 * KEYS
        assert judged >= 4 * KEYS
    else:
        assert classified == KEYS
        assert judged == 0
    if "lpm" in ways:
        assert lookups.sum_of(WAYS["lpm"]) == (KEYS if keys == "hit" else 0)
