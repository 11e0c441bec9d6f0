# SPDX-License-Identifier: Apache-2.0
"""Results as text for people. Must not measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def text(found: Mapping[str, Any]) -> str:
    parts = {"calls": _calls, "reload": _reload, "idle": _idle}
    return "\n\n".join("\n".join(parts[name](result)) for name, result in found.items())


def _calls(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"calls: ns (median of {result['rounds']} turns), paired ratio to no program anywhere [quartiles]"
    if result["foreign_programs"]:
        yield f"  ({result['foreign_programs']} programs of others are loaded: the baseline may not be without any)"
    for operation, settings in result["operations"].items():
        for setting, value in settings.items():
            spread = f"[{value['ratio_low']:.3f} {value['ratio_high']:.3f}]"
            yield f"  {operation:<15} {setting:<11} {value['ns']:>9.0f}   {value['ratio']:.3f} {spread}"


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


def _idle(result: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"idle daemon: {result['wake_ups']} wake-ups and {result['cpu_ms']} ms of CPU in {result['seconds']:.0f} s, "
        f"{result['rss_mib']} MiB resident"
    )
