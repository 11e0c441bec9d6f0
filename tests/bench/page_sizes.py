# SPDX-License-Identifier: Apache-2.0
"""The part of the page on what could grow with the size of a policy: look-ups, calls beside others, loading, memory.

Must not measure or draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.figures import Curves
from bench.markdown import picture, spread, table, table_by_size

Row = Mapping[str, Any]

_WAYS = {"classified": "cgnetd, classification", "judged": "cgnetd, whole verdict", "lpm": "hash and LPM trie"}
_OPERATIONS = {
    "sendto": "UDP sendto, always to one address",
    "spread": "UDP sendto, each to another address",
    "refused": "TCP connect, each to another address, refused",
}
_CURVES = {"ms": ("Loading", "ms"), "kernel_kib": ("Memory of the kernel", "KiB")}


def plots(found: Mapping[str, Any]) -> dict[str, Curves]:
    """By the name of their files."""
    made: dict[str, Curves] = {}
    for family in (4, 6) if "lookup" in found else ():
        rows = [row for row in found["lookup"]["rows"] if row["family"] == family]
        made[f"lookup-prefixes-v{family}"] = _lookup(rows, "random prefixes", f"IPv{family}, a look-up", "prefixes")
        made[f"lookup-rules-v{family}"] = _lookup(rows, "rules", f"IPv{family}, a look-up", "rules")
    calls = _calls(found)
    for operation, title in _OPERATIONS.items():
        of_it = [row for row in calls if row["operation"] == operation]
        if of_it:
            points = _by_name(of_it, "setting", "ns")
            made[f"peers-{operation}"] = Curves(title, "entries of the list", "ns", points)
    loads = _loads(found)
    for key, (title, unit) in _CURVES.items():
        known = [row for row in loads if row.get(key)]
        if known:
            made[f"curves-{key}"] = Curves(title, "entries of the list", unit, _by_name(known, "loader", key))
    return made


def _lookup(rows: Iterable[Row], what: str, title: str, x: str) -> Curves:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in (row for row in rows if row["what"] == what):
        for way, value in row["ns"].items():
            name = _WAYS[way].replace(",", ":") + (", misses" if row["keys"] == "miss" else "")
            points.setdefault(name, []).append((row["size"], value["best"]))
    return Curves(title, x, "ns", points)


def _by_name(rows: Iterable[Row], who: str, key: str) -> dict[str, list[tuple[float, float]]]:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row[who], []).append((row["size"], row[key]))
    return points


def _calls(found: Mapping[str, Any]) -> Sequence[Row]:
    return [*found.get("peers", {}).get("rows", ()), *found.get("systemd", {}).get("calls", ())]


def _loads(found: Mapping[str, Any]) -> Sequence[Row]:
    rows = [*found.get("curves", {}).get("rows", ()), *found.get("systemd", {}).get("loads", ())]
    return [row for row in rows if "failed" not in row]


def sections(found: Mapping[str, Any], drawn: Iterable[str]) -> Iterator[str]:
    """The text, with the plots that were drawn."""
    names = set(drawn)
    if "lookup" in found:
        yield from _lookup_section(found["lookup"], names)
    if "peers" in found or "systemd" in found:
        yield from _peers_section(found, names)
    if "curves" in found:
        yield from _curves_section(found, names)


def _lookup_section(result: Mapping[str, Any], drawn: set[str]) -> Iterator[str]:
    yield "## Look-ups\n"
    yield (
        f"Nanoseconds, best of {result['rounds']} turns of {result['keys']:,} keys, the loop over them taken away. "
        "Nothing is remembered.\n"
    )
    yield from (picture(name, "a look-up by size") for name in sorted(drawn) if name.startswith("lookup"))
    yield table(
        ["policy", "size", "family", "keys", *_WAYS.values(), "image, KiB"],
        (
            [
                *(row["what"], f"{row['size']:,}", f"IPv{row['family']}", row["keys"]),
                *(f"{row['ns'][way]['best']:.0f}" if way in row["ns"] else "" for way in _WAYS),
                f"{row['image_bytes'] // 1024:,}",
            ]
            for row in result["rows"]
        ),
    )
    yield table(
        ["program, its loop included", "instructions after verification", "bytes of machine code"],
        ([name, about["instructions"], about["machine_code_bytes"]] for name, about in result["programs"].items()),
    )


def _peers_section(found: Mapping[str, Any], drawn: set[str]) -> Iterator[str]:
    rows = _calls(found)
    yield "## Beside others\n"
    yield (
        "One list of denied prefixes, in force by each; nanoseconds of calls that it does not deny (median), and the "
        "ratio [quartiles] to no list in the same turns. Landlock knows ports only: as many allowed ones. systemd is "
        "compared with a unit without a list.\n"
    )
    for operation, title in _OPERATIONS.items():
        of_it = [row for row in rows if row["operation"] == operation]
        yield f"### {title}\n"
        if f"peers-{operation}" in drawn:
            yield picture(f"peers-{operation}", title)
        yield table_by_size(of_it, "setting", lambda row: f"{row['ns']:,.0f}, {spread(row['to_none'])}", head="entries")


def _curves_section(found: Mapping[str, Any], drawn: set[str]) -> Iterator[str]:
    rows = _loads(found)
    yield "## Loading and memory\n"
    yield "A list put in force where another one was, a part of which is the same. Milliseconds of the command:\n"
    yield from (picture(f"curves-{key}", title) for key, (title, _) in _CURVES.items() if f"curves-{key}" in drawn)
    yield table_by_size(rows, "loader", lambda row: f"{row['ms']:,.1f}", head="ms")
    yield table_by_size(rows, "loader", _kernel, head="kernel, KiB")
    yield table_by_size(rows, "loader", lambda row: f"{row['resident_mib']:.0f}", head="resident, MiB")
    for row in found["curves"]["rows"]:
        if "failed" in row:
            yield f"{row['loader']} could not load {row['size']:,}: {row['failed']}\n"


def _kernel(row: Row) -> str:
    kib = row.get("kernel_kib")
    return "" if kib is None else f"{kib:,}"
