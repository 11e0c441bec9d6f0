# SPDX-License-Identifier: Apache-2.0
"""Globs over cgroup names: their syntax, and the reference matcher.

A name is a string of bytes to the kernel, so a glob is one too: `?` and `[...]` stand for one byte, and a character
outside ASCII stands for its UTF-8 bytes. A backslash is an ordinary character, because systemd writes names such as
`dev-disk\\x2dby.mount`. Must not know of units, users or policies.
"""

from __future__ import annotations

from functools import lru_cache

STAR = -1  # token: any bytes, also none
_ANY_BYTE = (1 << 256) - 1


class GlobError(ValueError):
    """A glob that cannot be read; the text says what is wrong and what is accepted."""


@lru_cache(maxsize=8192)
def tokens(glob: str) -> tuple[int, ...]:
    """The glob of one component as tokens: STAR, or a mask of 256 bits, bit B set where byte B matches.

    Raises GlobError.
    """
    raw = glob.encode("utf-8", "surrogateescape")
    found: list[int] = []
    at = 0
    while at < len(raw):
        char = raw[at : at + 1]
        if char == b"[":
            end = raw.find(b"]", at + 1)
            found.append(_byte_class(raw[at + 1 : end], closed=end >= 0))
            at = end
        elif char == b"*":
            found.append(STAR)
        else:
            found.append(_ANY_BYTE if char == b"?" else 1 << raw[at])
        at += 1
    return tuple(found)


def _byte_class(body: bytes, *, closed: bool) -> int:
    if not closed:
        raise GlobError("[ without its ]: accepted are [abc], [a-z] and [!a]")
    negated, members = body[:1] == b"!", body.removeprefix(b"!")
    if not members:
        raise GlobError("empty [ ]: accepted are [abc], [a-z] and [!a]")
    if members[:1] == b"^":
        raise GlobError("[^...] is not accepted: write [!...]")
    if not members.isascii() or b"[" in members:
        raise GlobError("[ ] holds a character that is not accepted: ASCII characters but [ and ]")
    mask = 0
    at = 0
    while at < len(members):
        first = last = members[at]
        if members[at + 1 : at + 2] == b"-" and at + 2 < len(members):
            last = members[at + 2]
            at += 2
        if last < first:
            raise GlobError(f"the range {chr(first)}-{chr(last)} is inverted: write {chr(last)}-{chr(first)}")
        mask |= (1 << last + 1) - (1 << first)
        at += 1
    return _ANY_BYTE & ~mask if negated else mask


def match(glob: str, name: str) -> bool:
    """Whether the glob of one component matches a cgroup's whole name.

    In time of len(glob) * len(name): after a mismatch only the last `*` is worth trying again.
    """
    wanted, raw = tokens(glob), name.encode("utf-8", "surrogateescape")
    at = token = 0
    star, star_at = -1, 0
    while at < len(raw):
        if token < len(wanted) and wanted[token] == STAR:
            star, star_at = token, at
            token += 1
        elif token < len(wanted) and wanted[token] >> raw[at] & 1:
            token, at = token + 1, at + 1
        elif star >= 0:
            star_at += 1
            token, at = star + 1, star_at
        else:
            return False
    return all(rest == STAR for rest in wanted[token:])


def components(glob: str) -> tuple[str, ...]:
    """The components of a path glob: "/a/*" -> ("a", "*"), "/" -> ()."""
    return tuple(glob[1:].split("/")) if glob != "/" else ()


def match_path(glob: str, path: tuple[str, ...]) -> bool:
    """Whether a path glob ("/a/**") matches a cgroup's path below the root, given as its names; () is the root.

    `**` stands for any number of names, at the end of the glob for one or more.
    """
    wanted = components(glob)
    reached = _skip({0}, wanted)  # numbers of glob components that can be used up by the names so far
    for name in path:
        consumed: set[int] = set()
        for used in reached:
            if used == len(wanted):
                continue
            if wanted[used] == "**":
                consumed |= {used, used + 1}
            elif match(wanted[used], name):
                consumed.add(used + 1)
        reached = _skip(consumed, wanted)
    return len(wanted) in reached


def _skip(reached: set[int], wanted: tuple[str, ...]) -> set[int]:
    """`reached` and what follows by letting a `**` that is not the last component stand for nothing."""
    for used in range(len(wanted) - 1):
        if used in reached and wanted[used] == "**":
            reached.add(used + 1)
    return reached
