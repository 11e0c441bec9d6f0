# SPDX-License-Identifier: Apache-2.0
"""Subject words to patterns over cgroup names. Must not know of cgroups that exist."""

from __future__ import annotations

from .glob import GlobError, components, tokens
from .types import Pattern, PatternKind

UNIT_SUFFIXES = (".service", ".scope", ".socket", ".slice", ".mount", ".swap")
_WITHOUT_CGROUP = (".timer", ".path", ".target", ".device", ".automount")
_ROOT_SLICE = "-.slice"
_LAST_UID = (1 << 32) - 2


class SubjectError(ValueError):
    """A word that names no cgroups; the text says what is wrong and what is accepted."""


def unit(word: str) -> Pattern:
    """A system unit: "nginx" means nginx.service."""
    name = _unit_name(word)
    return Pattern(PatternKind.PATH, "/") if name == _ROOT_SLICE else Pattern(PatternKind.UNIT, name)


def user_unit(word: str) -> Pattern:
    """A unit of a user's service manager."""
    return Pattern(PatternKind.USER_UNIT, _unit_name(word))


def slice_unit(word: str) -> Pattern:
    """A system slice: "batch" means batch.slice. `-.slice` is the root."""
    suffix = next((s for s in UNIT_SUFFIXES + _WITHOUT_CGROUP if word.endswith(s)), "")
    if suffix not in ("", ".slice"):
        raise SubjectError(f'"{word}" is not a slice: name it under `units`')
    return unit(word if suffix else f"{word}.slice")


def user(uid: int) -> Pattern:
    """All of a user's logins: their user-UID.slice."""
    if not 0 <= uid <= _LAST_UID or uid == 0xFFFF:
        raise SubjectError(f"{uid} is not a user ID: accepted are 0 to {_LAST_UID} but 65535")
    return Pattern(PatternKind.UNIT, f"user-{uid}.slice")


def cgroup(word: str) -> Pattern:
    """A path below the cgroup root."""
    if not word.startswith("/"):
        raise SubjectError(f'"{word}" is not a path: it must begin with / (below the cgroup root)')
    for part in components(word):
        if part == "":
            raise SubjectError(f'"{word}" has an empty component: no // and no / at the end')
        if part in (".", ".."):
            raise SubjectError(f'"{word}" has a component {part}: write the path itself')
        if "**" in part and part != "**":
            raise SubjectError(f'"{word}": ** must be a component of its own, as in /a/**')
        _check(part, word)
    return Pattern(PatternKind.PATH, word)


def _unit_name(word: str) -> str:
    if word == "":
        raise SubjectError("is empty: accepted is the name of a unit, globs are allowed")
    if "/" in word:
        raise SubjectError(f'"{word}" has a /: accepted is the name of a unit; paths belong under `cgroups`')
    without = next((suffix for suffix in _WITHOUT_CGROUP if word.endswith(suffix)), None)
    if without:
        raise SubjectError(f'"{word}": a {without} unit has no cgroup; accepted: {", ".join(UNIT_SUFFIXES)}')
    _check(word, word)
    return word if word.endswith(UNIT_SUFFIXES) else f"{word}.service"


def _check(glob: str, word: str) -> None:
    if not glob.isprintable():
        raise SubjectError(f"{word!a} has a control character")
    try:
        tokens(glob)
    except GlobError as error:
        raise SubjectError(f'"{word}": {error}') from None
