# SPDX-License-Identifier: Apache-2.0
"""Who is governed, and in which order."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgnetd.policy.glob import GlobError, match, match_path, tokens
from cgnetd.policy.select import select
from cgnetd.policy.types import Pattern, PatternKind, Policy, PolicySet, Subject, Tier, Where


def pattern(word: str) -> Pattern:
    """ "/a/b" is a path, "~x.service" a user unit, everything else a unit."""
    if word.startswith("/"):
        return Pattern(PatternKind.PATH, word)
    kind = PatternKind.USER_UNIT if word.startswith("~") else PatternKind.UNIT
    return Pattern(kind, word.removeprefix("~"))


def policy(name: str, match_words: str, *, but: str = "", tier: Tier = Tier.NORMAL, priority: int = 500) -> Policy:
    subject = Subject(tuple(map(pattern, match_words.split())), tuple(map(pattern, but.split())))
    return Policy(name, subject, Where("f", 1), tier=tier, priority=priority)


def chain(path: str, *policies: Policy) -> str:
    found = PolicySet(tuple(sorted(policies, key=lambda found: found.order)))
    names = tuple(part for part in path.split("/") if part)
    return " ".join(chosen.name for chosen in select(found, names))


@pytest.mark.parametrize(
    ("words", "path", "governed"),
    [
        ("a.service", "/system.slice/a.service", True),
        ("a.service", "/system.slice/a.service/payload/x", True),
        ("a.service", "/a.service", True),
        ("a.service", "/system.slice", False),
        ("a.service", "/", False),
        ("a.service", "/user.slice/user-1.slice/user@1.service/app.slice/a.service", False),
        ("user@1.service", "/user.slice/user-1.slice/user@1.service/app.slice", True),
        ("user@*.service", "/user.slice/user-1.slice/user@1.service", True),
        ("a.service", "/user.slice/user@x.service/a.service", True),
        ("a.service", "/user.slice/user@.service/a.service", True),
        ("~a.service", "/user.slice/user@1.service/app.slice/a.service/x", True),
        ("~a.service", "/system.slice/a.service", False),
        ("~user@1.service", "/user@1.service", False),
        ("~user@1.service", "/user@1.service/user@1.service", True),
        ("/", "/", True),
        ("/", "/a/b", True),
        ("/a", "/a/b", True),
        ("/a", "/b/a", False),
        ("/a/*", "/a", False),
        ("/a/*", "/a/b/c", True),
        ("/a/**", "/a", False),
        ("/a/**", "/a/b", True),
        ("/**", "/", False),
        ("/**", "/a", True),
        ("/**/b", "/b", True),
        ("/**/b", "/a/x/b/c", True),
        ("/a/**/b", "/a/b", True),
        ("/a/**/b", "/a/x/y", False),
        ("/a/**/**", "/a", False),
        ("/a/**/**", "/a/b", True),
        (r"dev-a\x2db.mount", r"/dev-a\x2db.mount", True),
    ],
)
def test_subject_governs(words: str, path: str, governed: bool) -> None:
    assert bool(chain(path, policy("p", words))) is governed


@pytest.mark.parametrize(
    ("path", "governed"),
    [("/a", True), ("/a/b", False), ("/a/b/c", False), ("/a/b/a", False), ("/a/bc", True), ("/x/b", False)],
)
def test_not_takes_a_cgroup_and_all_below_away(path: str, governed: bool) -> None:
    assert bool(chain(path, policy("p", "/a /**/a", but="/a/b"))) is governed


def test_not_above_the_match_takes_it_away() -> None:
    assert chain("/a/b", policy("p", "/a/b", but="/a")) == ""


def test_tiers_come_in_order() -> None:
    policies = [policy(tier.name, "/a", tier=tier, priority=1000 - tier) for tier in Tier]
    assert chain("/a", *policies) == "ADMIN NORMAL BASELINE"


@pytest.mark.parametrize(
    ("tier", "order"), [(Tier.ADMIN, "top mid low"), (Tier.NORMAL, "low mid top"), (Tier.BASELINE, "low mid top")]
)
def test_admin_is_nearest_the_root_first_others_nearest_the_cgroup(tier: Tier, order: str) -> None:
    policies = [policy("mid", "/a/b", tier=tier), policy("top", "/a", tier=tier), policy("low", "/a/b/c", tier=tier)]
    assert chain("/a/b/c/d", *policies) == order


def test_depth_comes_before_priority_and_priority_before_name() -> None:
    policies = [
        policy("z", "/a", priority=1),
        policy("y", "/a", priority=1),
        policy("x", "/a", priority=2),
        policy("w", "/a/b", priority=9),
    ]
    assert chain("/a/b", *policies) == "w y z x"


@pytest.mark.parametrize(("tier", "order"), [(Tier.ADMIN, "both mid"), (Tier.NORMAL, "both mid")])
def test_subject_that_matches_twice_counts_at_its_first_or_last(tier: Tier, order: str) -> None:
    both, mid = policy("both", "/a /a/b/c", tier=tier), policy("mid", "/a/b", tier=tier, priority=0)
    assert chain("/a/b/c", both, mid) == order


@pytest.mark.parametrize(
    ("glob", "names", "others"),
    [
        ("*", ["", "a", "ab", "é"], []),
        ("a*c", ["ac", "abc", "abcc"], ["a", "ab", "cac"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("[abc]", ["a", "c"], ["d", "", "ab"]),
        ("[a-cx]", ["b", "x"], ["d", "-"]),
        ("[!a-c]", ["d", "-"], ["a", ""]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[*]", ["*"], ["a"]),
        ("a]", ["a]"], ["a"]),
        (r"a\*", [r"a\b", "a\\"], ["a*"]),
        ("*a*b", ["ab", "xaxb", "aab"], ["ba"]),
        ("a**b", ["ab", "axb"], ["a"]),
        ("\u00e9", ["\u00e9"], ["e", "\xe8"]),
        ("??", ["\u00e9", "ab"], ["a"]),
    ],
)
def test_glob_matches_whole_names(glob: str, names: list[str], others: list[str]) -> None:
    assert [name for name in names + others if match(glob, name)] == names


def test_name_that_is_not_utf8_is_matched_by_its_bytes() -> None:
    assert match("a?", b"a\xff".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("glob", ["[", "[a", "a[]", "[!]", "[^a]", "[b-a]", "[é]", "[[a]"])
def test_bad_glob_is_refused(glob: str) -> None:
    with pytest.raises(GlobError):
        tokens(glob)


@settings(deadline=None)
@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_glob_agrees_with_a_regular_expression(glob: str, name: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char, char) for char in glob)
    assert match(glob, name) == bool(re.fullmatch(expression, name))


def test_many_stars_take_no_time() -> None:
    assert not match("*a" * 60 + "b", "a" * 255)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["a", "b"]), max_size=6),
)
def test_path_glob_agrees_with_a_regular_expression(parts: list[str], path: list[str]) -> None:
    expression = ""
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        expression += {"**": "(/[^/]+)+" if last else "(/[^/]+)*", "*": "/[^/]+"}.get(part, f"/{part}")
    text = "".join(f"/{name}" for name in path)
    assert match_path("/" + "/".join(parts), tuple(path)) == bool(re.fullmatch(expression, text))
