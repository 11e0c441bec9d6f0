# SPDX-License-Identifier: Apache-2.0
"""Events of libyaml to one document: dicts, lists, str, int, bool, None and Trap, and the place of each.

The inner loops are written for speed: ten thousand rules are two hundred thousand events. Must not know of files or of
what documents mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaml import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent

from ..errors import Problem
from .document import COLUMN_BITS, Document, Marks, dotted, line_column, locations, start
from .scalars import resolve

_MAX_DEPTH = 32
_MAX_ALIASED_NODES = 100_000


class TooMuch(Exception):
    """A document that would grow or nest beyond what a person writes."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


class _Plain(dict[str, object]):
    """Values of unquoted words, each resolved once."""

    def __missing__(self, text: str) -> object:
        value = self[text] = resolve(text)
        return value


class Reader:
    """Builds one document from its events."""

    def __init__(self, next_event: Callable[[], Any], first_line: int) -> None:
        self._next = next_event
        self._first_line = first_line
        self._plain = _Plain()
        self._anchors: dict[str, tuple[object, Marks, int]] = {}
        self._depth = 0
        self._nodes = 0
        self._aliased = 0
        self._faults: list[tuple[list[Any], str | None, int, str]] = []  # marks of what holds it, key, place, message

    def problems(self, document: Document) -> list[Problem]:
        """What is wrong with the text of the document that was read."""
        if not self._faults:
            return []
        result: list[Problem] = []
        loc_of = locations(document.data, document.marks)
        for holder, key, place, message in self._faults:
            loc = loc_of.get(id(holder), ())  # not there: it is below a key that was left out
            loc = loc if key is None else (*loc, key)
            line, column = line_column(place)
            result.append(Problem(document.file, line, column, dotted(loc), message))
        return result

    def node(self, event: Any) -> tuple[object, Marks]:
        """The value that begins with `event`, and its marks; reads its events to the end."""
        kind = type(event)
        if kind is AliasEvent:
            return self._alias(event)
        if kind is not ScalarEvent and event.tag is None and event.anchor is None:  # the usual case
            return self._mapping(event) if kind is MappingStartEvent else self._sequence(event)
        before = self._nodes
        value: object
        marks: Marks
        if kind is ScalarEvent:
            value, marks = self._plain[event.value] if event.implicit[0] else event.value, self._place(event)
        elif kind is MappingStartEvent:
            value, marks = self._mapping(event)
        else:
            value, marks = self._sequence(event)
        if event.tag is not None:
            marks = marks if isinstance(marks, list) else [marks]  # a list can be found again by its identity
            self._faults.append((marks, None, start(marks), f"has the tag {event.tag}: tags are not accepted"))
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, marks, self._nodes - before + 1)
        return value, marks

    def _place(self, event: Any) -> int:
        mark = event.start_mark
        return int(mark.line + self._first_line << COLUMN_BITS | mark.column)

    def _sequence(self, opening: Any) -> tuple[list[object], Marks]:
        next_event, first_line, plain = self._next, self._first_line, self._plain
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._too_deep(opening)
        values: list[object] = []
        mark = opening.start_mark
        marks: list[Any] = [mark.line + first_line << COLUMN_BITS | mark.column]
        while (kind := type(event := next_event())) is not SequenceEndEvent:
            if kind is ScalarEvent and event.implicit[0] and event.anchor is None:  # the usual case, in line
                values.append(plain[event.value])
                mark = event.start_mark
                marks.append(mark.line + first_line << COLUMN_BITS | mark.column)
            else:
                value, below = self.node(event)
                values.append(value)
                marks.append(below)
        self._depth -= 1
        self._nodes += len(values)
        return values, marks

    def _mapping(self, opening: Any) -> tuple[dict[str, object], Marks]:
        next_event, first_line, plain = self._next, self._first_line, self._plain
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._too_deep(opening)
        values: dict[str, object] = {}
        mark = opening.start_mark
        marks: list[Any] = [mark.line + first_line << COLUMN_BITS | mark.column]
        below: Marks
        while (kind := type(event := next_event())) is not MappingEndEvent:
            mark = event.start_mark
            place = mark.line + first_line << COLUMN_BITS | mark.column
            key = event.value if kind is ScalarEvent and event.tag is None else self._bad_key(event, marks)
            if (kind := type(event := next_event())) is ScalarEvent and event.implicit[0] and event.anchor is None:
                value = plain[event.value]  # the usual case, in line
                mark = event.start_mark
                below = mark.line + first_line << COLUMN_BITS | mark.column
            else:
                value, below = self.node(event)
            if key in values:
                first = marks[2 * list(values).index(key) + 1] >> COLUMN_BITS
                self._faults.append((marks, key, place, f"is a duplicate key: first at line {first + 1}"))
            elif key is not None:
                values[key] = value
                marks += (place, below)
        self._depth -= 1
        self._nodes += 2 * len(values)
        return values, marks

    def _too_deep(self, opening: Any) -> TooMuch:
        return self._too_much(opening, f"is nested more than {_MAX_DEPTH} deep")

    def _bad_key(self, event: Any, marks: list[Any]) -> str | None:
        self._faults.append((marks, None, self._place(event), "has a key that is not plain text"))
        self.node(event)
        return None

    def _alias(self, event: Any) -> tuple[object, Marks]:
        if event.anchor not in self._anchors:
            raise self._too_much(event, f"alias *{event.anchor} has no anchor &{event.anchor} that ends before it")
        value, marks, nodes = self._anchors[event.anchor]
        self._aliased += nodes
        self._nodes += nodes
        if self._aliased > _MAX_ALIASED_NODES:
            raise self._too_much(event, f"aliases stand for more than {_MAX_ALIASED_NODES} values")
        return value, marks

    def _too_much(self, event: Any, message: str) -> TooMuch:
        return TooMuch(event.start_mark.line + self._first_line, event.start_mark.column, message)
