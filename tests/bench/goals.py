# SPDX-License-Identifier: Apache-2.0
"""What was to be reached, beside what was measured. Must not measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.redirect import REDIRECTED

SENDTO_RATIO = 1.13  # UDP sendto with 1,000 rules, to no program at all
REDIRECT_RATIO = 1.05  # TCP connect and close, redirected, to direct without programs
RELOAD_MS = 500.0  # 10,000 rules, from asking to in force
RSS_MIB = 60.0


@dataclass(frozen=True, slots=True)
class Goal:
    """`reached` is None where that cannot be told."""

    name: str
    limit: str
    measured: str
    reached: bool | None


def goals(found: Mapping[str, Any]) -> Iterator[Goal]:
    """Of the parts that were measured."""
    if "calls" in found:
        yield from _calls(found["calls"]["operations"], clean=not found["calls"]["foreign_programs"])
    if "redirect" in found:
        yield from _redirect(found["redirect"]["operations"], clean=not found["redirect"]["foreign_programs"])
    if "reload" in found:
        command, own = found["reload"]["command_ms"], found["reload"]["pass_ms"]
        yield _below("reload of 10,000 rules, the daemon's pass", own, RELOAD_MS, "ms")
        yield _below("reload of 10,000 rules, the whole command", command, RELOAD_MS, "ms")
    if "idle" in found:
        idle = found["idle"]
        yield Goal("idle: wake-ups", "0", str(idle["wake_ups"]), idle["wake_ups"] == 0)
        yield _below("idle: resident memory", idle["rss_mib"], RSS_MIB, "MiB")


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
