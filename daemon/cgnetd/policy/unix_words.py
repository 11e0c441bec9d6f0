# SPDX-License-Identifier: Apache-2.0
"""Names of UNIX sockets as rules write them, to globs over bytes. Must not know of rules."""

from __future__ import annotations

from .glob import GlobError, components
from .names import ABSTRACT, ANY, NAME_MAX, automaton, shortest
from .scalars import shown

_ACCEPTED = "accepted: a path that begins with /, an abstract name that begins with @"
_MAGIC = frozenset("*?[")


class SocketNameError(ValueError):
    """A word that is no name; the text says what is wrong and what is accepted."""


def name_globs(word: str) -> tuple[bytes, ...]:
    """The globs that a word of `unix` stands for: one, or those of `any`. Raises SocketNameError."""
    if word == "any":
        return ANY
    glob = _bytes_of(word, f"{_ACCEPTED}, any")
    if word.startswith("/"):
        _check_components(word)
    try:
        automaton(glob)
        length = shortest(glob)
    except GlobError as error:
        raise SocketNameError(f'"{shown(word)}": {error}') from None
    _check_length(word, length)
    return (glob,)


def plain_name(word: str) -> bytes:
    """The one name that a word stands for. Raises SocketNameError."""
    name = _bytes_of(word, _ACCEPTED)
    if word.startswith("/"):
        _check_components(word)
    if _MAGIC & set(word):
        raise SocketNameError(f'"{shown(word)}" is a glob: accepted is one name, without *, ? and [')
    _check_length(word, len(name))
    return name


def name_text(name: bytes) -> str:
    """A name, or a glob, as it would be written."""
    text = name.decode("utf-8", "surrogateescape")
    return shown(f"@{text[1:]}" if name.startswith(ABSTRACT) else text)


def _bytes_of(word: str, accepted: str) -> bytes:
    if word in ("@", "/") or not word.startswith(("@", "/")):
        raise SocketNameError(f'"{shown(word)}" is not the name of a UNIX socket; {accepted}')
    if not word.isprintable():
        raise SocketNameError(f'"{shown(word)}" has a control character')
    raw = word.encode("utf-8", "surrogateescape")
    return ABSTRACT + raw[1:] if word.startswith("@") else raw


def _check_components(word: str) -> None:
    for part in components(word):
        if part == "":
            raise SocketNameError(f'"{shown(word)}" has an empty component: no // and no / at the end')
        if part in (".", ".."):
            raise SocketNameError(f'"{shown(word)}" has a component {part}: write the path itself')
        if "**" in part and part != "**":
            raise SocketNameError(f'"{shown(word)}": ** must be a component of its own, as in /a/**')


def _check_length(word: str, length: int) -> None:
    longest = NAME_MAX if word.startswith("@") else NAME_MAX - 1
    if length > longest:
        raise SocketNameError(
            f'"{shown(word)}" is too long: the name of a UNIX socket has at most {NAME_MAX - 1} bytes'
        )
