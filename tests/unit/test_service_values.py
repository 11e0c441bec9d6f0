# SPDX-License-Identifier: Apache-2.0
"""The service's pure parts: times, generation numbers, counters, cgroup paths."""

from __future__ import annotations

from array import array

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.policy.types import Action, Policy, PolicySet, Rule, Section, Subject, Where
from cgnetd.service import clock
from cgnetd.service.cgroup_paths import CgroupPaths
from cgnetd.service.counters import carried
from cgnetd.service.generation import is_older, next_number, of_image, renumbered

WHERE = Where("/etc/cgnetd/policy.d/a.yaml", 3, 7)


def policy(name: str, *rules: str, errno: int = 1) -> Policy:
    made = tuple(Rule(rule, Section.EGRESS, Action.DENY, WHERE, errno=errno) for rule in rules)
    return Policy(name, Subject(()), WHERE, egress=made)


def image_of(*policies: Policy):  # type: ignore[no-untyped-def]
    return compile_image(PolicySet(policies), default_action=Action.ALLOW, generation=1)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("500ms", 5 * 10**8), ("10s", 10**10), ("1.5m", 9 * 10**10), ("2h", 72 * 10**11), ("3min", 18 * 10**10)],
)
def test_duration_is_a_number_with_a_unit(text: str, ns: int) -> None:
    assert clock.parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 d", "1s2", "1e3s", "٣s"])
def test_other_words_are_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a number with a unit"):
        clock.parse_duration(text)


def test_time_is_utc_with_microseconds() -> None:
    assert clock.rfc3339(1_700_000_000_000_001_999) == "2023-11-14T22:13:20.000001Z"


def test_numbers_go_up_and_begin_again_behind_zero() -> None:
    last = 2**32 - 1
    assert [next_number(), next_number(3, 7, 0), next_number(last)] == [1, 8, 1]
    assert is_older(3, 4)
    assert is_older(last, 1)
    assert not is_older(4, 3)
    assert not is_older(1, last)
    assert not is_older(5, 5)


def test_number_is_in_image_and_index_and_not_in_the_digest() -> None:
    image = image_of(policy("a", "x"))
    first = of_image(image, 41)
    second = renumbered(first, 42)
    for generation in (first, second):
        put = generation.cells[:]
        put[: len(generation.head) // 8] = array("Q", generation.head)
        assert put == image.with_generation(generation.number).cells
    assert (first.index.generation, second.index.generation) == (41, 42)
    assert first.digest == second.digest == image.digest
    assert image.index.generation == 1


def test_counts_follow_their_rule_and_leave_with_it() -> None:
    old = image_of(policy("a", "x", "y"), policy("b", "z")).index
    new = image_of(policy("a", "n", "y"), policy("c", "z")).index
    totals = [100 + cell for cell in range(2 * len(old.refs))]
    by_name = {(ref.policy, ref.rule): ref.rule_id for ref in old.refs}
    found = carried(old, totals, new)
    assert len(found) == 2 * len(new.refs)
    for ref in new.refs:
        pair = found[2 * ref.rule_id : 2 * ref.rule_id + 2]
        before = by_name.get((ref.policy, ref.rule))
        assert pair == ([0, 0] if before is None else totals[2 * before : 2 * before + 2])
    assert carried(old, [], new) == [0] * (2 * len(new.refs))


def test_path_is_known_after_the_cgroup_has_gone() -> None:
    living = {5: "/a"}
    paths = CgroupPaths(1, living.get, remembered=3)
    paths.learn(6, 5, "b")
    paths.learn(7, 6, "c")
    paths.learn(8, 1, "top")
    living.clear()
    assert [paths.path(i) for i in (1, 6, 7, 8)] == ["/", "/a/b", "/a/b/c", "/top"]
    assert paths.path(5) == ""  # the oldest was forgotten


def test_path_below_an_unknown_parent_is_not_made_up() -> None:
    paths = CgroupPaths(1, lambda _: None)
    paths.learn(6, 5, "b")
    assert paths.path(6) == ""
