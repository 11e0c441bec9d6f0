# SPDX-License-Identifier: Apache-2.0
"""Globs over names of UNIX sockets, and names that could be any path."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnetd.policy.names import ANY, is_unsure, match_name, shortest
from cgnetd.policy.unix_words import SocketNameError, name_globs, name_text, plain_name

PARTS = st.sampled_from(["**", "*", "a", "a*", "?b", "*a*", "b", "[ab]", "[!a]b"])
COMPONENTS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5)


def matches(word: str, name: bytes) -> bool:
    return match_name(name_globs(word), name)


@pytest.mark.parametrize(
    ("word", "inside", "outside"),
    [
        ("/run/x", [b"/run/x"], [b"/run/xy", b"/run", b"/run/x/y", b"\0/run/x"]),
        ("/run/*", [b"/run/x", b"/run/xy"], [b"/run", b"/run/x/y"]),
        ("/run/**", [b"/run/x", b"/run/x/y"], [b"/run", b"/runx"]),
        ("/run/**/x", [b"/run/x", b"/run/a/x", b"/run/a/b/x"], [b"/run/ax", b"/run/x/a", b"/runx"]),
        ("/**", [b"/x", b"/x/y"], [b"\0x"]),
        ("/**/**/x", [b"/x", b"/a/x", b"/a/b/x"], [b"/ax"]),
        ("/run/?", [b"/run/x"], [b"/run/xy", b"/run/"]),
        ("/run/[!a]", [b"/run/b"], [b"/run/a", b"/run/"]),
        ("/run/é", ["/run/é".encode()], [b"/run/e"]),
        ("@x", [b"\0x"], [b"x", b"\0xy", b"\0x\0"]),
        ("@a*c", [b"\0ac", b"\0a/b/c", b"\0a\0c"], [b"\0ab", b"/ac"]),
        ("@**", [b"\0", b"\0x"], [b"/x"]),
        ("@?", [b"\0/", b"\0\0"], [b"\0"]),
        ("any", [b"/x", b"/x/y", b"\0x", b"\0"], []),
    ],
)
def test_glob_matches_names(word: str, inside: list[bytes], outside: list[bytes]) -> None:
    assert [name for name in inside if not matches(word, name)] == []
    assert [name for name in outside if matches(word, name)] == []


@given(st.lists(PARTS, min_size=1, max_size=5), COMPONENTS)
@settings(max_examples=1000, deadline=None)
def test_path_glob_is_the_regular_expression_that_it_stands_for(parts: list[str], path: list[str]) -> None:
    pattern = ""
    for number, part in enumerate(parts):
        if part == "**":
            pattern += "(/[^/]+)+" if number == len(parts) - 1 else "(/[^/]+)*"
        else:
            pattern += "/" + part.replace("[!", "[^").replace("*", "[^/]*").replace("?", "[^/]")
    name = "/" + "/".join(path)
    assert matches("/" + "/".join(parts), name.encode()) is bool(re.fullmatch(pattern, name))


@pytest.mark.parametrize(
    "name", [b"x", b"./x", b"", b"/", b"/run/", b"/run//x", b"/run/./x", b"/run/../x", b"/..", b"a/b"]
)
def test_name_that_could_be_any_path_is_unsure(name: bytes) -> None:
    assert is_unsure(name)
    assert not matches("any", name)


@pytest.mark.parametrize("name", [b"/x", b"/run/x", b"/run/.x", b"/run/..x", b"/...", b"\0", b"\0../x", b"\0x//"])
def test_name_that_says_what_it_is(name: bytes) -> None:
    assert not is_unsure(name)
    assert matches("any", name)


def test_length_that_a_name_must_have() -> None:
    assert [shortest(glob) for glob in (b"/run/x", b"/run/*", b"/run/**", b"/**/a", b"\0*", b"\0a?[bc]")] == [
        *(6, 5, 6, 2, 1, 4)
    ]
    assert name_globs("@" + "x" * 107) == (b"\0" + b"x" * 107,)
    assert name_globs("/" + "x" * 106 + "*") == (b"/" + b"x" * 106 + b"*",)
    with pytest.raises(SocketNameError, match="too long"):
        name_globs("/" + "x" * 107)
    with pytest.raises(SocketNameError, match="too long"):
        plain_name("@" + "x" * 108)


def test_names_are_told_as_they_are_written() -> None:
    assert [name_text(plain_name(word)) for word in ("/run/x", "@x/y", "/é")] == ["/run/x", "@x/y", "/é"]
    assert name_globs("any") == ANY
