# SPDX-License-Identifier: Apache-2.0
"""Programs of others, as `cgnetctl status` shows them to people. Pure: from the daemon's answer to lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cgnetd.cli.answer import table

_ORDERS = {
    "before": "before ours",
    "after": "after ours",
    "apart": "no hook of ours",
    "displaced": "does not run",
}


def neighbour_lines(status: Mapping[str, Any]) -> tuple[str, ...]:
    """A row for each hook, order and kind of program, however many cgroups have it. Empty if there is nobody."""
    neighbours = status.get("neighbours") or {}
    lines = table(_rows(neighbours.get("programs") or ()), ("HOOK", "ORDER", "PROGRAM", "OWNER", "FLAGS", "CGROUP"))
    return (*(lines[1:] and lines), *_doubts(neighbours))


def conflict_texts(status: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(conflict["text"]) for conflict in status.get("conflicts") or ())


def _rows(programs: Any) -> list[tuple[str, ...]]:
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for program in programs:
        key = tuple(str(program[name]) for name in ("hook", "order", "name", "owner", "flags"))
        alike.setdefault(key, []).append(program)
    return [_row(found) for found in alike.values()]


def _row(alike: list[Mapping[str, Any]]) -> tuple[str, ...]:
    one = alike[0]
    names = f"{one['prog_id']} {one['name']}".rstrip() if len(alike) == 1 else f"{len(alike)} x {one['name']}".rstrip()
    place = one["cgroup"] or "above, out of sight"
    return (
        str(one["hook"]),
        _ORDERS[one["order"]],
        names,
        str(one["owner"] or one["pinned"] or f"uid {one['uid']}"),
        str(one["flags"]),
        place if len(alike) == 1 else f"{place} and {len(alike) - 1} more",
    )


def _doubts(neighbours: Mapping[str, Any]) -> Iterator[str]:
    if neighbours.get("error"):
        yield f"not known: {neighbours['error']}"
    elif not neighbours.get("complete", True):
        yield "there may be more: the tree is too large to be looked through"
