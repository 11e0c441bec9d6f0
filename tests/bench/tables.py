# SPDX-License-Identifier: Apache-2.0
"""Results as text for people. Must not measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench import tables_sizes
from bench.doubts import doubts
from bench.goals import ANSWERS, goals


def text(found: Mapping[str, Any]) -> str:
    parts = {
        "machine": _machine,
        "lookup": tables_sizes.lookup,
        "structures": tables_sizes.structures,
        "calls": _calls,
        "peers": tables_sizes.peers,
        "systemd": tables_sizes.systemd,
        "curves": tables_sizes.curves,
        "storm": tables_sizes.storm,
        "redirect": _redirect,
        "programs": _programs,
        "verdicts": _verdicts,
        "reload": _reload,
        "scale": _scale,
        "stall": _stall,
        "idle": _idle,
    }
    shown = [*(parts[name](result) for name, result in found.items()), _goals(found)]
    return "\n\n".join(filter(None, ("\n".join(lines) for lines in shown)))


def _machine(result: Mapping[str, Any]) -> Iterator[str]:
    kernel = f"Linux {result['kernel']} {result['architecture']}"
    yield f"{kernel}, {result['cpus']} CPUs ({result['cpu']}), Python {result['python']}, {result['clang']}"
    yield from (f"  ({line})" for line in doubts(result))


def _calls(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"calls: ns (median of {result['rounds']} turns, the best fifth of each), paired ratios [quartiles] "
        "to no program and to an empty one"
    )
    yield from _foreign(result)
    for operation, settings in result["operations"].items():
        for setting, value in settings.items():
            ratios = f"{_spread(value['to_none'])}   {_spread(value['to_empty'])}"
            yield f"  {operation:<15} {setting:<11} {value['ns']:>9.0f}   {ratios}"


def _redirect(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"redirect: ns (median of {result['rounds']} turns, the best fifth of each), paired ratios [quartiles] "
        "to direct and to nftables"
    )
    yield from _foreign(result)
    for setting, program in result["missing"].items():
        yield f"  ({setting} was left out: {program} is not installed)"
    for operation, settings in result["operations"].items():
        for setting, value in settings.items():
            rival = _spread(value["to_nftables"]) if value["to_nftables"] else ""
            ratios = f"{_spread(value['to_direct'])}   {rival}"
            yield f"  {operation:<13} {setting:<20} {value['ns']:>8.0f}   {ratios.rstrip()}"


def _foreign(result: Mapping[str, Any]) -> Iterator[str]:
    if result["foreign_programs"]:
        yield f"  ({result['foreign_programs']} programs of others are loaded: the baseline may not be without any)"


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['ratio']:.3f} [{ratio['low']:.3f} {ratio['high']:.3f}]"


def _programs(result: Mapping[str, Any]) -> Iterator[str]:
    yield "sendmsg4 as the kernel times it, its own 20 ns with it: ns a run"
    yield from (
        f"  {setting:<12} best {of['best']:6.1f}   median {of['median']:6.1f}" for setting, of in result.items()
    )


def _verdicts(result: Mapping[str, Any]) -> Iterator[str]:
    yield "verdicts that no CPU remembers: ns, by policies in the chain"
    for rules, chains in result.items():
        costs = "   ".join(f"{policies}: {ns:.0f}" for policies, ns in chains.items())
        yield f"  {rules + ' rule' + 's' * (rules != '1') + ' each':<16} {costs}"


def _reload(result: Mapping[str, Any]) -> Iterator[str]:
    parts, prefixes = result["parts"], result["prefixes"]
    load = result["pass_ms"] - parts["parse_ms"] - parts["compile_ms"]
    yield f"reload of {result['rules']} rules: {result['command_ms']:.0f} ms from start to return of the command"
    yield f"  the daemon's pass: {result['pass_ms']:.0f} ms, of that"
    yield f"  parse {parts['parse_ms']:.0f}, compile {parts['compile_ms']:.0f}, write and label and swap {load:.0f}"
    yield f"  resident memory then: {result['rss_mib']} MiB"
    yield (
        f"{prefixes['count']} prefixes in a set file: parse {prefixes['parse_ms']:.0f} ms, "
        f"compile {prefixes['compile_ms']:.0f} ms"
    )


def _scale(result: Mapping[str, Any]) -> Iterator[str]:
    for of in result.values():
        yield f"{of['policies']} policies, {of['cgroups']} cgroups, {of['prefixes']} prefixes: ms, lowest (median)"
        for name, about in (("rule_ms", "one changed rule"), ("set_ms", "one changed set"), ("pass_ms", "a full pass")):
            if of[name]:
                yield f"  {about:<17} {of[name]['lowest']:.0f} ({of[name]['median']:.0f})"
        start = of["start_us"]
        yield f"  a new cgroup      {start['governed']['here']:.1f} us, before the daemon {start['bare']['here']:.1f}"
        yield f"  idle              {of['idle_cpu_ms']} ms of CPU in {of['idle_s']:.0f} s, {of['rss_mib']} MiB resident"


def _stall(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"stall: longest wait of a thread above all others in {result['window_s']} s, us, by CPU: lowest (median, "
        f"highest) of {result['rounds']} windows; {result['prefixes']} prefixes, {result['image_kib']} KiB"
    )
    for key, about in (("freed_us", "an image is freed"), ("idle_us", "nothing is freed")):
        yield f"  {about:<18} " + "   ".join(
            f"{of['lowest']:.0f} ({of['median']:.0f}, {of['highest']:.0f})" for of in result[key]
        )


def _idle(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"idle daemon: {result['wake_ups']} wake-ups and {result['cpu_ms']} ms of CPU in {result['seconds']:.0f} s, "
        f"{result['rss_mib']} MiB resident"
    )


def _goals(found: Mapping[str, Any]) -> Iterator[str]:
    for number, goal in enumerate(goals(found)):
        if not number:
            yield "goals"
        yield f"  {goal.name:<42} {goal.limit:<23} {goal.measured:<22} {ANSWERS[goal.reached]}"
