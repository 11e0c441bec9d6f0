# SPDX-License-Identifier: Apache-2.0
"""What a verb of the command line answers, as values: data for --json, lines for people, an exit code.

Pure. Must not print, and must not know whether it is read on a terminal: colour comes from the `Style` it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """`data` is what --json prints, one JSON document; `lines` is what a person reads."""

    data: Mapping[str, Any]
    lines: tuple[str, ...]
    exit_code: int = 0


class Stream(NamedTuple):
    """An answer that comes bit by bit: with --json one document a line, otherwise `line(item)` for each item."""

    items: Iterator[Mapping[str, Any]]
    line: Callable[[Mapping[str, Any]], str]
    exit_code: int = 0


class Style(NamedTuple):
    """Words in colour, where there is colour."""

    colour: bool = False

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def doubtful(self, text: str) -> str:
        return self._paint("33", text)

    def strong(self, text: str) -> str:
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def verdict(self, word: str) -> str:
        """`word` as itself: "deny" and its kin in red, everything else in green."""
        return self.bad(word) if word.startswith(("deny", "denied")) else self.good(word)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> tuple[str, ...]:
    """Columns, two spaces apart. Cells are plain text: colour would count as width."""
    texts = [tuple(head), *(tuple(row) for row in rows)] if head else [tuple(row) for row in rows]
    if not texts:
        return ()
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    return tuple(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    )
