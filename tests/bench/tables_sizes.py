# SPDX-License-Identifier: Apache-2.0
"""Results by size, as text for people: a line for who was measured, a column a size. Must not measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_ABSENT = "-"


def lookup(result: Mapping[str, Any]) -> Iterator[str]:
    programs = result["programs"]
    yield f"lookup: ns a look-up (best of {result['rounds']} turns, {result['keys']} keys each), nothing remembered"
    yield "  instructions after verification, the loop's own ones in each: " + ", ".join(
        f"{name} {about['instructions']}" for name, about in programs.items()
    )
    for row in result["rows"]:
        ns = "   ".join(f"{way} {value['best']:.0f}" for way, value in row["ns"].items())
        yield f"  {row['size']:>8} {row['what']:<19} IPv{row['family']} {row['keys']:<5} {ns}"


def structures(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"structures: ns a look-up (best of {result['rounds']} turns, {result['keys']} keys each), bytes a prefix"
    for row in result["rows"]:
        each = "   ".join(f"{name} {ns:.0f} ({row['bytes_a_prefix'][name]:.0f})" for name, ns in row["ns"].items())
        yield f"  {row['size']:>8} {row['what']:<19} IPv{row['family']} {row['keys']:<5} {each}"


def peers(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"peers: ns a call (median of {result['rounds']} turns, the best fifth of each), by entries of the list"
    yield from _missing(result)
    yield from _calls(result["rows"])


def systemd(result: Mapping[str, Any]) -> Iterator[str]:
    if "missing" in result:
        yield f"systemd: left out: {result['missing']}"
        return
    yield f"IPAddressDeny= of systemd {result['systemd']}: ns a call, by entries of the list"
    yield from _calls(result["calls"])
    yield "  loading, ms"
    yield from _by_size(result["loads"], "loader", lambda row: f"{row['ms']:.0f}")


def curves(result: Mapping[str, Any]) -> Iterator[str]:
    yield from _missing(result)
    done = [row for row in result["rows"] if "failed" not in row]
    for title, show in _CURVES.items():
        yield f"{title}, by entries of the list"
        yield from _by_size(done, "loader", show)
    for row in result["rows"]:
        if "failed" in row:
            yield f"  {row['loader']} could not load {row['size']}: {row['failed']}"


_CURVES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "loading: ms from start to return of the command": lambda row: f"{row['ms']:.1f}",
    "memory of the kernel, KiB": lambda row: _ABSENT if row["kernel_kib"] is None else str(row["kernel_kib"]),
    "resident memory of who loads, at most or afterwards, MiB": lambda row: f"{row['resident_mib']:.0f}",
}


def storm(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"storm: {result['calls']} denied calls in a loop, one event a destination and {result['window_s']} s"
    for row in result["rows"]:
        yield (
            f"  {row['operation']:<8} {row['destinations']:>8} destinations {row['calls_a_second']:>9} calls/s "
            f"({row['calls_a_second_without_events']} without events), daemon {row['daemon_cpu_s_a_second']:.3f} CPU, "
            f"{row['records']} records, {row['lost']} lost, {row['unaccounted']} not accounted for"
        )


def _missing(result: Mapping[str, Any]) -> Iterator[str]:
    for name, program in result["missing"].items():
        yield f"  ({name} was left out: {program} is not installed)"


def _calls(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for operation in dict.fromkeys(row["operation"] for row in rows):
        yield f"  {operation}"
        of_it = [row for row in rows if row["operation"] == operation]
        yield from _by_size(of_it, "setting", lambda row: f"{row['ns']:.0f} ({row['to_none']['ratio']:.2f})")


def _by_size(rows: Iterable[Mapping[str, Any]], who: str, show: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    found = {(row[who], row["size"]): show(row) for row in rows}
    sizes = sorted({size for _, size in found})
    yield f"  {'':<16}" + "".join(f"{size:>16}" for size in sizes)
    for name in dict.fromkeys(name for name, _ in found):
        yield f"  {name:<16}" + "".join(f"{found.get((name, size), _ABSENT):>16}" for size in sizes)
