# SPDX-License-Identifier: Apache-2.0
"""Set files: one CIDR or address a line, `#` begins a comment. A hundred thousand lines are usual.

Takes the bytes of a file. Must not know where files are or which set names them.
"""

from __future__ import annotations

from ..errors import Problem
from .packed import packed
from .ranges import MAX_RANGES, merged
from .scalars import shown
from .types import AddressRanges, Range
from .words import AddressError, parse_prefix

_MAX_PROBLEMS = 20  # told one by one, the others by number


def parse_set_file(path: str, data: bytes) -> tuple[AddressRanges, list[Problem]]:
    """The addresses of all good lines, and a problem for each bad one (the first 20, then how many more).

    Ends at the line that is one too many for any policy set.
    """
    v4: list[Range] = []
    v6: list[Range] = []
    problems: list[Problem] = []
    bad = 0
    # Comments may be in any encoding; addresses are ASCII, so that what cannot be decoded is a bad line or a comment.
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), start=1):
        word = line.partition("#")[0].strip() if "#" in line else line.strip()
        if not word:
            continue
        try:
            family, found = parse_prefix(word)
        except AddressError as error:
            bad += 1
            if bad <= _MAX_PROBLEMS:
                problems.append(Problem(path, number, line.index(word) + 1, "", _explained(word, error)))
            continue
        (v4 if family == 4 else v6).append(found)
        if len(v4) + len(v6) > MAX_RANGES:
            problems.append(
                Problem(path, number, 1, "", f"is one address more than the {MAX_RANGES} that are accepted")
            )
            break
    if bad > _MAX_PROBLEMS:
        problems.append(Problem(path, problems[-1].line + 1, 1, "", f"and {bad - _MAX_PROBLEMS} more lines are wrong"))
    return AddressRanges(packed(merged(v4)), packed(merged(v6))), problems


def _explained(word: str, error: AddressError) -> str:
    if len(word.split()) > 1:
        return f'"{shown(word)}" is more than one word: accepted is one address or CIDR a line, # begins a comment'
    return f"{error}; accepted is one address or CIDR a line, # begins a comment"
