# SPDX-License-Identifier: Apache-2.0
"""A YAML document as plain data with the place of every node, so that whatever is wrong is told with line and column.

Must not know how documents are read or what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import Problem
from .scalars import shown

# A place is line << 24 | column, both counted from 0. Marks of a scalar: its place; of a list: [place, marks of each
# item]; of a mapping: [place, place of the first key, marks of its value, ...] in the order of the dict. Ints and flat
# lists, because a document of ten thousand rules has two hundred thousand nodes.
Marks: TypeAlias = "int | list[Any]"
Loc: TypeAlias = tuple[str | int, ...]

COLUMN_BITS = 24
COLUMN_MASK = (1 << COLUMN_BITS) - 1


@dataclass(slots=True)
class Document:
    """One document of a file."""

    file: str
    data: object
    marks: Marks

    def place(self, loc: Loc, *, key: bool = False) -> tuple[int, int]:
        """Line and column (from 1) of the value at `loc`, or of its key; of what holds it where it does not exist."""
        data, marks = self.data, self.marks
        found = start(marks)
        for step in loc:
            index = _index(data, step)
            if index is None or not isinstance(marks, list):
                break
            if isinstance(data, dict):
                is_wanted_key = key and step is loc[-1]
                found = marks[2 * index + 1]
                data, marks = data[step], marks[2 * index + 2]
                found = found if is_wanted_key else start(marks)
            else:
                assert isinstance(data, list)
                data, marks = data[index], marks[index + 1]
                found = start(marks)
        return line_column(found)

    def places(self, loc: Loc) -> list[tuple[int, int]]:
        """Line and column (from 1) of each item of the list at `loc`; [] where there is none."""
        data, marks = self.data, self.marks
        for step in loc:
            index = _index(data, step)
            if index is None or not isinstance(marks, list) or not isinstance(data, dict):
                return []
            data, marks = data[step], marks[2 * index + 2]
        items = marks[1:] if isinstance(data, list) and isinstance(marks, list) else []
        return [line_column(start(item)) for item in items]

    def problem(self, loc: Loc, message: str, *, key: bool = False) -> Problem:
        line, column = self.place(loc, key=key)
        return Problem(self.file, line, column, dotted(loc), message)


def dotted(loc: Loc) -> str:
    """("spec", "egress", 2) -> "spec.egress[2]"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{shown(step)}" for step in loc).removeprefix(".")


def line_column(place: int) -> tuple[int, int]:
    return (place >> COLUMN_BITS) + 1, (place & COLUMN_MASK) + 1


def locations(data: object, marks: Marks) -> dict[int, Loc]:
    """Where each node is that has a list of marks, by the identity of that list."""
    found: dict[int, Loc] = {}

    def walk(data: object, marks: Marks, loc: Loc) -> None:
        if not isinstance(marks, list):
            return
        found.setdefault(id(marks), loc)
        if isinstance(data, dict):
            for (key, value), below in zip(data.items(), marks[2::2], strict=True):
                walk(value, below, (*loc, key))
        elif isinstance(data, list):
            for index, (value, below) in enumerate(zip(data, marks[1:], strict=True)):
                walk(value, below, (*loc, index))

    walk(data, marks, ())
    return found


def start(marks: Marks) -> int:
    return marks if isinstance(marks, int) else int(marks[0])


def _index(data: object, step: str | int) -> int | None:
    if isinstance(data, dict):
        return list(data).index(step) if step in data else None
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        return step
    return None
