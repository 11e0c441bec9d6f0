# SPDX-License-Identifier: Apache-2.0
"""YAML text to plain data with the place of every node: dicts, lists, str, int, bool, None and Trap, and their marks.

One pass over the events of libyaml. Must not know what the documents mean.
"""

from __future__ import annotations

import re

import yaml

from ..errors import Problem
from .document import Document
from .reader import Reader, TooMuch

_MAX_BROKEN_DOCUMENTS = 50  # in one file; each costs a search for the next one
_DOCUMENT_START = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


def compose(file: str, data: bytes) -> tuple[list[Document], list[Problem]]:
    """All documents of a file that could be read, empty ones left out, and what is wrong with the others.

    After a syntax error reading goes on at the next `---`. Never raises for bad input.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return [], [_problem_at(file, data, error.start, f"is not UTF-8: {error.reason}")]
    documents: list[Document] = []
    problems: list[Problem] = []
    first_line, start = 0, 0
    for _ in range(_MAX_BROKEN_DOCUMENTS):
        broken = _compose_until_broken(file, data[start:], first_line, documents, problems)
        if broken is None:
            break
        following = _next_document(data, start, broken - first_line)
        if following is None:
            break
        first_line += data.count(b"\n", start, following)
        start = following
    return documents, problems


def _next_document(data: bytes, start: int, lines: int) -> int | None:
    """Offset of the first `---` at least `lines` lines (and one) after `start`.

    The line of the error counts: an unclosed bracket is noticed where the next document begins.
    """
    at = start
    for _ in range(max(lines, 1)):
        at = data.find(b"\n", at) + 1
        if at == 0:
            return None
    found = _DOCUMENT_START.search(data, at)
    return found.start() if found else None


def _compose_until_broken(
    file: str, data: bytes, first_line: int, documents: list[Document], problems: list[Problem]
) -> int | None:
    """Append what can be read; the line (from 0) of the syntax error that ended it, if one did."""
    loader = yaml.CSafeLoader(data)
    try:
        while loader.check_event():
            if isinstance(loader.get_event(), yaml.DocumentStartEvent):
                reader = Reader(loader.get_event, first_line)
                document = Document(file, *reader.node(loader.get_event()))
                problems += reader.problems(document)
                if document.data is not None:
                    documents.append(document)
    except TooMuch as error:
        problems.append(Problem(file, error.line + 1, error.column + 1, "", error.message))
        return error.line
    except yaml.reader.ReaderError as error:
        found = _problem_at(file, data, error.position, f"is not valid YAML: {error.reason}")
        problems.append(Problem(file, found.line + first_line, found.column, "", found.message))
        return found.line - 1 + first_line
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        message = f"is not valid YAML: {_syntax_message(error, first_line)}{_hint(data, error)}"
        problems.append(Problem(file, first_line + line + 1, column + 1, "", message))
        return first_line + line
    return None


def _problem_at(file: str, data: bytes, offset: int, message: str) -> Problem:
    before = data[:offset].decode("utf-8", "replace")
    line = before.count("\n") + 1
    return Problem(file, line, len(before) - (before.rfind("\n") + 1) + 1, "", message)


def _syntax_message(error: yaml.MarkedYAMLError, first_line: int) -> str:
    problem = str(error.problem)
    if error.context is None or error.context_mark is None:
        return problem
    return f"{problem} {error.context} that begins at line {error.context_mark.line + first_line + 1}"


def _hint(data: bytes, error: yaml.MarkedYAMLError) -> str:
    """What usually is behind a syntax error, by the text it points at."""
    mark = error.problem_mark
    lines = data.decode("utf-8", "replace").split("\n")
    if mark is None or mark.line >= len(lines):
        return ""
    line = lines[mark.line]
    rest = line[mark.column :]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; indent with spaces, tabs are not accepted"
    if "alias" in str(error.context):
        return "; quote a glob that begins with *"
    if rest[:1] == ":":
        return "; quote an IPv6 address that begins or ends with a colon"
    if rest[:1] in ("@", "`", "%"):
        return f"; quote a text that begins with {rest[0]}"
    return ""
