# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of a page. Must not know what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

ABSENT = ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Ends with an empty line."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def table_by_size(
    rows: Iterable[Mapping[str, Any]], who: str, show: Callable[[Mapping[str, Any]], str], *, head: str
) -> str:
    """A line for each that is named in `who`, a column a size."""
    found = {(row[who], row["size"]): show(row) for row in rows}
    sizes = sorted({size for _, size in found})
    names = dict.fromkeys(name for name, _ in found)
    lines = ([name, *(found.get((name, size), ABSENT) for size in sizes)] for name in names)
    return table([head, *(f"{size:,}" for size in sizes)], lines)


def picture(name: str, title: str) -> str:
    return f"![{title}]({name}.svg)\n"


def spread(ratio: Mapping[str, float]) -> str:
    """Median and quartiles."""
    return f"{ratio['ratio']:.3f} [{ratio['low']:.3f} {ratio['high']:.3f}]"
