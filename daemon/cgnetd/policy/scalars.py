# SPDX-License-Identifier: Apache-2.0
"""What an unquoted word in a document means, judged by its source text.

YAML 1.1 reads `no` as false, `22:22` as 1342 and `010` as 8; YAML 1.2 does not. A word that the two read differently,
or that is a number only by accident, becomes a Trap, which no field accepts. Must not know of fields or documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trap:
    """An unquoted word that is read as something else than it looks like."""

    text: str
    reading: str  # what YAML takes it for, e.g. "a boolean"


_PLAIN: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TRAP_STARTS = frozenset("-+.0123456789yYnNoO")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_READINGS = {
    "boolean": (r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF", "a boolean"),
    "base60": (r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", "a number in base 60"),
    "octal": (r"[-+]?0[0-9_]+|[-+]?0o[0-7_]+", "an octal number"),
    "hexadecimal": (r"[-+]?0x[0-9a-fA-F_]+", "a hexadecimal number"),
    "binary": (r"[-+]?0b[01_]+", "a binary number"),
    "date": (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?", "a date"),
    "large": (r"-?[1-9][0-9]{18,}", "a number of more than 18 digits"),
    "number": (r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "a number"),
    "special": (r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "a number"),
}
_TRAP = re.compile("|".join(f"(?P<{name}>(?:{pattern}))" for name, (pattern, _) in _READINGS.items()), re.DOTALL)


def resolve(text: str) -> object:
    """The value of an unquoted word: None, bool, int, str, or a Trap."""
    if text in _PLAIN:
        return _PLAIN[text]
    if text[0] not in _TRAP_STARTS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    trap = _TRAP.fullmatch(text)
    return Trap(text, _READINGS[trap.lastgroup][1]) if trap and trap.lastgroup else text


def describe(value: object) -> str:
    """The value as a message names it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int():
            return f"the number {value}"
        case str():
            return f'"{shown(value)}"'
        case Trap():
            return f"unquoted {shown(value.text)}, which YAML reads as {value.reading}"
        case list():
            return "a list"
        case _:
            return "a mapping"


def shown(text: str) -> str:
    """The text cut to what fits in a message, without line breaks and control characters."""
    cut = text if len(text) <= 80 else text[:77] + "..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


def not_text(value: object) -> str:
    """Why a value is not the text that a field wants, and what mends it."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) is None:
        text = f"{next(iter(value))}:"
        return f'is a mapping, because of the colon at its end: quote it: "{shown(text)}"'
    if isinstance(value, Trap):
        return f'is {describe(value)}: quote it: "{shown(value.text)}"'
    if isinstance(value, bool | int):
        text = str(value).lower()
        return f'must be text, is {describe(value)}: quote it: "{text}"'
    return f"must be text, is {describe(value)}"
