# SPDX-License-Identifier: Apache-2.0
"""The part of the page on calls, storms, redirects and the daemon. Must not measure or draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.figures import Spreads
from bench.markdown import picture, spread, table

_NO_BASELINE = ("none", "empty")


def plots(found: Mapping[str, Any]) -> dict[str, Spreads]:
    """By the name of their files."""
    if "calls" not in found:
        return {}
    ratios = {
        operation: {
            setting: (value["to_empty"]["ratio"], value["to_empty"]["low"], value["to_empty"]["high"])
            for setting, value in settings.items()
            if setting not in _NO_BASELINE
        }
        for operation, settings in found["calls"]["operations"].items()
    }
    title = "Calls: ratio to an empty program, median and quartiles"
    return {"calls": Spreads(title, "times as long as with an empty program", ratios)}


def sections(found: Mapping[str, Any], drawn: Iterable[str]) -> Iterator[str]:
    """The text, with the plots that were drawn."""
    for name, section in _SECTIONS.items():
        if name in found:
            yield from section(found[name])
            if name in drawn:
                yield picture(name, "ratios by call")


def _calls(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Calls\n"
    yield (
        f"Nanoseconds (median of {result['rounds']} turns, the best fifth of each), and paired ratios [quartiles] to "
        "no program and to an empty one. A 6 behind the name: IPv6.\n"
    )
    yield table(
        ["call", "setting", "ns", "to none", "to empty"],
        (
            [operation, setting, f"{value['ns']:,.0f}", spread(value["to_none"]), spread(value["to_empty"])]
            for operation, settings in result["operations"].items()
            for setting, value in settings.items()
        ),
    )


def _storm(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Storms of denials\n"
    yield (
        f"{result['calls']:,} calls in a loop, every one denied, to so many destinations in turn; an event a "
        f"destination and {result['window_s']} s. The daemon's CPU time is up to the last event, for each second of "
        "the storm. Calls are lost when no event has them, and then told as lost.\n"
    )
    keys = ("operation", "destinations", "calls_a_second", "calls_a_second_without_events", "daemon_cpu_s_a_second")
    told = ("records", "lost", "unaccounted")
    head = ["call", "destinations", "calls a second", "without events", "daemon, CPU s a second", *told]
    yield table(head, ([row[key] for key in (*keys, *told)] for row in result["rows"]))


def _redirect(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Redirects\n"
    yield "Nanoseconds, and ratios [quartiles] to the direct call and to DNAT of nftables.\n"
    yield table(
        ["call", "setting", "ns", "to direct", "to nftables"],
        (
            [
                *(operation, setting, f"{value['ns']:,.0f}", spread(value["to_direct"])),
                spread(value["to_nftables"]) if value["to_nftables"] else "",
            ]
            for operation, settings in result["operations"].items()
            for setting, value in settings.items()
        ),
    )


def _programs(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## The sendmsg4 program, timed by the kernel\n"
    rows = ([name, value["best"], value["median"]] for name, value in result.items())
    yield table(["setting", "best, ns", "median, ns"], rows)


def _verdicts(result: Mapping[str, Any]) -> Iterator[str]:
    chains = list(next(iter(result.values())))
    yield "## Verdicts by the number of policies asked\n"
    yield table(
        ["rules in each", *chains], ([rules, *(f"{ns:.0f}" for ns in by.values())] for rules, by in result.items())
    )


def _reload(result: Mapping[str, Any]) -> Iterator[str]:
    parts, prefixes = result["parts"], result["prefixes"]
    yield f"## Reload of {result['rules']:,} rules\n"
    yield table(
        ["part", "ms"],
        [
            ["parse", parts["parse_ms"]],
            ["compile", parts["compile_ms"]],
            ["the daemon's pass", result["pass_ms"]],
            ["the command", result["command_ms"]],
            [f"{prefixes['count']:,} prefixes in a file: parse", prefixes["parse_ms"]],
            [f"{prefixes['count']:,} prefixes in a file: compile", prefixes["compile_ms"]],
        ],
    )


def _scale(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Many of everything\n"
    columns = [
        f"{of['policies']:,} policies, {of['cgroups']:,} cgroups, {of['prefixes']:,} prefixes" for of in result.values()
    ]
    rows = [
        ["one changed rule, ms", *(_turns(of["rule_ms"]) for of in result.values())],
        ["one changed set, ms", *(_turns(of["set_ms"]) for of in result.values())],
        ["everything read and compared, ms", *(_turns(of["pass_ms"]) for of in result.values())],
        ["loaded at the start, ms", *(f"{of['load_ms']:.0f}" for of in result.values())],
        ["image, KiB", *(of["image_kib"] for of in result.values())],
        ["a new cgroup, us", *(of["start_us"]["governed"]["here"] for of in result.values())],
        ["the same without a daemon, us", *(of["start_us"]["bare"]["here"] for of in result.values())],
        ["idle, ms of CPU a second", *(of["idle_cpu_ms"] / of["idle_s"] for of in result.values())],
        ["resident, MiB", *(of["rss_mib"] for of in result.values())],
    ]
    yield table(["lowest (median)", *columns], rows)


def _stall(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## The longest stall\n"
    yield (
        f"The longest that a thread above all others had to wait for its CPU in {result['window_s']} s, microseconds: "
        f"lowest, median and highest of {result['rounds']} such windows in which an image of {result['prefixes']:,} "
        f"prefixes ({result['image_kib']:,} KiB) was freed, and as many in between in which nothing was.\n"
    )
    kinds = (("an image freed", result["freed_us"]), ("nothing freed", result["idle_us"]))
    rows = (
        [f"CPU {cpu}, {kind}", *(f"{of[turn]:.0f}" for turn in ("lowest", "median", "highest"))]
        for kind, cpus in kinds
        for cpu, of in enumerate(cpus)
    )
    yield table(["", "lowest", "median", "highest"], rows)


def _turns(spread: Mapping[str, float]) -> str:
    return f"{spread['lowest']:.0f} ({spread['median']:.0f})" if spread else ""


def _idle(result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Idle\n"
    yield (
        f"{result['wake_ups']} wake-ups and {result['cpu_ms']} ms of CPU in {result['seconds']:.0f} s; "
        f"{result['rss_mib']} MiB resident.\n"
    )


_SECTIONS = {
    "calls": _calls,
    "storm": _storm,
    "redirect": _redirect,
    "programs": _programs,
    "verdicts": _verdicts,
    "reload": _reload,
    "scale": _scale,
    "stall": _stall,
    "idle": _idle,
}
