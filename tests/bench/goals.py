# SPDX-License-Identifier: Apache-2.0
"""What was to be reached, beside what was measured. Must not measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.peers import EMPTY, OURS
from bench.redirect import REDIRECTED

SENDTO_RATIO = 1.13  # UDP sendto with 1,000 rules, to no program at all
GOVERNED_RATIO, UNGOVERNED_RATIO = 1.04, 1.02  # UDP sendto, to an empty program
PROGRAM_NS = 120.0  # the whole program on a call that no CPU remembers, beyond an empty one, at every size
CLASSIFY_NS = {4: 30.0, 6: 50.0}  # at 10 rules; twice that at 100,000 prefixes and 10,000 rules
PREFIX_BYTES = 16.0  # of an image, beside the table of rows
REDIRECT_RATIO = 1.05  # TCP connect and close, redirected, to direct without programs
RELOAD_MS = 500.0  # 10,000 rules, from asking to in force
RSS_MIB = 60.0
ONE_RULE_MS = 50.0  # one changed rule among 1,000 policies
ONE_SET_MS = 1000.0  # a changed set of 100,000 prefixes
PASS_MS = 1000.0  # over 10,000 cgroups
START_US = 50.0  # what a cgroup's start costs more

ANSWERS = {True: "reached", False: "MISSED", None: "cannot be told"}


@dataclass(frozen=True, slots=True)
class Goal:
    """`reached` is None where that cannot be told."""

    name: str
    limit: str
    measured: str
    reached: bool | None


def goals(found: Mapping[str, Any]) -> Iterator[Goal]:
    """Of the parts that were measured."""
    if "lookup" in found:
        yield from _lookup(found["lookup"]["rows"])
    if "structures" in found:
        yield from _structures(found["structures"]["rows"])
    if "calls" in found:
        yield from _calls(found["calls"]["operations"], clean=not found["calls"]["foreign_programs"])
    if "peers" in found:
        yield from _peers(found["peers"]["rows"], clean=not found["peers"]["foreign_programs"])
    if "redirect" in found:
        yield from _redirect(found["redirect"]["operations"], clean=not found["redirect"]["foreign_programs"])
    if "reload" in found:
        command, own = found["reload"]["command_ms"], found["reload"]["pass_ms"]
        yield _below("reload of 10,000 rules, the daemon's pass", own, RELOAD_MS, "ms")
        yield _below("reload of 10,000 rules, the whole command", command, RELOAD_MS, "ms")
    if "scale" in found:
        yield from _scale(found["scale"])
    if "idle" in found:
        idle = found["idle"]
        yield Goal("idle: wake-ups", "0", str(idle["wake_ups"]), idle["wake_ups"] == 0)
        yield _below("idle: resident memory", idle["rss_mib"], RSS_MIB, "MiB")


def _scale(crowds: Mapping[str, Any]) -> Iterator[Goal]:
    of = crowds["everything"]
    start = of["start_us"]["governed"]["here"] - of["start_us"]["bare"]["here"]
    yield _below("one changed rule of 1,000 policies", crowds["policies"]["rule_ms"]["median"], ONE_RULE_MS, "ms")
    yield _below("a changed set of 100,000 prefixes", of["set_ms"]["median"], ONE_SET_MS, "ms")
    yield _below("a full pass over 10,000 cgroups", of["pass_ms"]["median"], PASS_MS, "ms")
    yield _below("what a new cgroup costs more", start, START_US, "us")


def _lookup(rows: Sequence[Mapping[str, Any]]) -> Iterator[Goal]:
    """Of hits and misses the slower."""
    for family, limit in CLASSIFY_NS.items():
        for what, size, times in (("rules", 10, 1), ("prefixes and rules", 10_000, 2)):
            of_it = [row for row in rows if (row["what"], row["size"], row["family"]) == (what, size, family)]
            slower = max(row["ns"]["classified"]["best"] for row in of_it)
            name = f"classification, IPv{family}, {size} rules" + (", 100,000 prefixes" if times > 1 else "")
            yield Goal(name, f"<= {limit * times:.0f} ns", f"{slower:.1f} ns", slower <= limit * times)


def _structures(rows: Sequence[Mapping[str, Any]]) -> Iterator[Goal]:
    sizes = {(row["what"], row["family"], row["size"]): row["bytes_a_prefix"]["indexes"] for row in rows}
    for (what, family, size), taken in sizes.items():
        name = f"bytes a prefix, IPv{family}, {size:,} {what.removesuffix(' prefixes')} ones"
        yield Goal(name, f"<= {PREFIX_BYTES:.0f}", f"{taken:.1f}", taken <= PREFIX_BYTES)


def _peers(rows: Sequence[Mapping[str, Any]], *, clean: bool) -> Iterator[Goal]:
    """`clean`: as below."""
    ns = {(row["setting"], row["size"]): row["ns"] for row in rows if row["operation"] == "spread"}
    beyond = max(ns[OURS, size] - ns[EMPTY, size] for setting, size in ns if setting == OURS)
    reached = beyond <= PROGRAM_NS if clean else None
    yield Goal("sendto, ever new addresses, beyond empty", f"<= {PROGRAM_NS:.0f} ns", f"{beyond:.0f} ns", reached)


def _calls(operations: Mapping[str, Any], *, clean: bool) -> Iterator[Goal]:
    """`clean`: no program of anybody else, so that "none" is a host without any."""
    for name in ("sendto", "sendto-drained"):
        ratio = operations[name]["1000 rules"]["to_none"]["ratio"]
        yield Goal(
            f"{name}, 1000 rules to none",
            f"<= {SENDTO_RATIO}",
            f"{ratio:.3f}",
            ratio <= SENDTO_RATIO if clean else None,
        )
    for setting, limit in (("1000 rules", GOVERNED_RATIO), ("ungoverned", UNGOVERNED_RATIO)):
        ratio = operations["sendto"][setting]["to_empty"]["ratio"]
        yield Goal(f"sendto, {setting} to empty", f"<= {limit}", f"{ratio:.3f}", ratio <= limit if clean else None)
    tcp = operations["tcp"]["1000 rules"]["to_none"]
    # Within noise: at least a quarter of the paired turns saw no cost at all.
    yield Goal("tcp cycle, 1000 rules to none", "within noise of 1", _spread(tcp), tcp["low"] <= 1.0 if clean else None)


def _redirect(operations: Mapping[str, Any], *, clean: bool) -> Iterator[Goal]:
    """`clean`: as above; the rivals' turns are measured without our programs too."""
    cycle, bulk = operations["tcp-cycle"][REDIRECTED], operations["tcp-mib"][REDIRECTED]["to_direct"]
    ratio = cycle["to_direct"]["ratio"]
    yield Goal(
        "redirected tcp cycle to direct",
        f"<= {REDIRECT_RATIO}",
        _spread(cycle["to_direct"]),
        ratio <= REDIRECT_RATIO if clean else None,
    )
    if cycle["to_nftables"]:
        rival = cycle["to_nftables"]
        yield Goal(
            "redirected tcp cycle to nftables DNAT", "< 1", _spread(rival), rival["ratio"] < 1 if clean else None
        )
    # No cost is told from noise: a quarter of the paired turns at least was not slower, and as many not faster.
    even = bulk["low"] <= 1.0 <= bulk["high"] or bulk["ratio"] <= 1.0
    yield Goal("redirected tcp throughput to direct", "within noise of 1", _spread(bulk), even if clean else None)


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['ratio']:.3f} [{ratio['low']:.3f} {ratio['high']:.3f}]"


def _below(name: str, value: float, limit: float, unit: str) -> Goal:
    return Goal(name, f"< {limit:.0f} {unit}", f"{value:.0f} {unit}", value < limit)
