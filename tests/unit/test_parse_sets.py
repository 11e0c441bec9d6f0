# SPDX-License-Identifier: Apache-2.0
"""Address sets and set files, and what is warned about."""

from __future__ import annotations

import pytest
from policy_text import HEAD, messages, parse_good, parse_texts, policy

from cgnetd.policy import load_sets, set_file
from cgnetd.policy.load import Source, parse
from cgnetd.policy.ranges import contains, difference, merged, size, subtracted, union, within
from cgnetd.policy.set_file import parse_set_file
from cgnetd.policy.types import AddressRanges
from support.work import work

SET = "---\napiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {name: %s}\nspec: %s\n"
USES = "  egress:\n    - {action: deny, to: [set:s]}"


def test_set_is_the_union_of_words_and_files() -> None:
    files = {"/s": b"# list\r\n10.0.0.0/9\r\n10.128.0.0/9 # other half\r\n\r\n2001:db8::1\r\n"}
    sets = SET % ("s", "{addresses: [11.0.0.0/8, localhost], files: [/s]}")
    (rule,) = policy(USES, files, sets).egress
    assert rule.addresses == AddressRanges(
        ((0x0A000000, 0x0BFFFFFF), (0x7F000000, 0x7FFFFFFF)), ((1, 1), (0x20010DB8 << 96 | 1,) * 2)
    )


def test_rules_that_name_the_set_alone_share_it() -> None:
    spec = f"{USES}\n    - {{action: deny, ports: [1], to: [set:s]}}"
    text = f"{HEAD}spec:\n  subject: {{units: [a]}}\n{spec}\n" + SET % ("s", "{files: [/s]}")
    found = parse_good(text, files={"/s": b"10.0.0.0/8\n"})
    assert [rule.addresses is found.sets[0].ranges for rule in found.policies[0].egress] == [True, True]
    assert found.files == ("a.yaml", "/s")


def test_set_may_stand_in_another_file_than_the_rule() -> None:
    text = f"{HEAD}spec:\n  subject: {{units: [a]}}\n{USES}\n"
    assert parse_texts(text, SET % ("s", "{addresses: [any]}")).problems == ()
    assert parse_texts(SET % ("s", "{addresses: [any]}"), text).problems == ()


def test_reference_to_a_wrong_set_is_no_second_error() -> None:
    text = f"{HEAD}spec:\n  subject: {{units: [a]}}\n{USES}\n" + SET % ("s", "{addresses: [10.0.0.1/8]}")
    (message,) = messages(text)
    assert "host bits set" in message


def test_unreadable_file_is_told_where_it_is_named_and_is_to_be_watched() -> None:
    result = parse_texts(SET % ("s", "{files: [/s, /t]}"), files={"/t": b""})
    assert [str(problem) for problem in result.problems] == [
        "a.yaml:5:16: spec.files[0]: cannot read /s: No such file or directory"
    ]
    assert set(result.set_files) == {"/s", "/t"}


def test_file_named_twice_is_read_once() -> None:
    text = SET % ("s", "{files: [/s]}") + SET % ("t", "{files: [/s, /s]}")
    assert messages(text, files={"/s": b"bad\n"}) == [
        '/s:1:1: "bad" is not an address or a CIDR such as 10.0.0.0/8; '
        "accepted is one address or CIDR a line, # begins a comment"
    ]


def test_bad_lines_are_capped() -> None:
    _, problems = parse_set_file("/s", b"x\n" * 1000)
    assert len(problems) == 21
    assert problems[-1].message == "and 980 more lines are wrong"


def test_file_ends_at_the_line_that_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_file, "MAX_RANGES", 3)
    _, problems = parse_set_file("/s", b"10.0.0.1\n# none\n10.0.0.3\n::1\n10.0.0.5\nbad\n")
    assert [str(problem) for problem in problems] == ["/s:5:1: is one address more than the 3 that are accepted"]


def test_sets_that_hold_too_much_together_are_refused_where_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_sets, "MAX_RANGES", 5)
    read: list[str] = []

    def read_set(path: str) -> bytes:
        read.append(path)
        return b"10.0.0.1\n10.0.0.3\n"

    shared = (SET % (name, "{files: [/s]}") for name in "abcdefg")  # of one file, which is held once
    assert parse([Source("a.yaml", "".join(shared).encode())], read_set=read_set, find_user=len).problems == ()
    own = [SET % (name, f"{{files: [/s], addresses: [10.0.0.{9 + at}]}}") for at, name in enumerate("ab")]
    text = "".join([*own, SET % ("c", "{files: [/t]}")])
    (problem,) = parse([Source("a.yaml", text.encode())], read_set=read_set, find_user=len).problems
    assert str(problem) == "a.yaml:10:7: spec: the addresses of all sets make more than 5 ranges"
    assert read == ["/s", "/s"]  # what comes behind is not read


@pytest.mark.parametrize(
    "data", [b"\x00", b"10.0.0.1\x00", b"\xff\xfe1", b"10.0.0.1/", b"1.2.3.4\x0b5.6.7.8", b"-", b"::g"]
)
def test_garbage_in_a_set_file_is_a_problem(data: bytes) -> None:
    _, problems = parse_set_file("/s", data)
    assert len(problems) == 1


def test_comments_in_any_encoding_are_no_problem() -> None:
    ranges, problems = parse_set_file("/s", b"\xef\xbb\xbf# caf\xe9\n\t10.0.0.1 # \xff\n")
    assert (ranges.v4, problems) == (((0x0A000001, 0x0A000001),), [])


def test_hundred_thousand_prefixes_are_parsed_at_a_few_calls_each() -> None:
    data = "\n".join(f"{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.128/25" for n in range(100_000)).encode()
    found = []
    assert work(lambda: found.append(parse_set_file("/s", data))) < 12 * 100_000
    ((ranges, problems),) = found
    assert (size(ranges), problems) == (100_000, [])


def test_ranges_are_merged_when_they_touch() -> None:
    assert merged([(5, 6), (1, 2), (3, 4), (9, 9), (5, 5)]) == ((1, 6), (9, 9))
    assert merged([]) == ()


def test_subtraction_leaves_what_is_between() -> None:
    assert subtracted([(0, 10), (20, 30)], [(0, 0), (5, 6), (9, 22), (30, 40)]) == ((1, 4), (7, 8), (23, 29))
    assert subtracted([(5, 6)], [(0, 10)]) == ()
    assert difference(AddressRanges(((0, 9),), ((0, 9),)), AddressRanges(((0, 9),))) == AddressRanges((), ((0, 9),))


def test_membership() -> None:
    ranges = ((2, 4), (8, 8))
    assert [number for number in range(10) if within(number, ranges)] == [2, 3, 4, 8]
    assert contains(ranges, ((3, 4), (8, 8)))
    assert not contains(ranges, ((3, 5),))
    assert not contains((), ((1, 1),))
    assert union([AddressRanges(((1, 2),)), AddressRanges(((3, 4),))]) == AddressRanges(((1, 4),))


def warnings(spec: str, sets: str = "") -> list[str]:
    text = f"{HEAD}spec:\n  subject: {{units: [a.service]}}\n{spec}\n{sets}"
    result = parse_texts(text, files={"/empty": b"# nothing\n"})
    assert result.problems == ()
    return [str(warning) for warning in result.warnings]


def test_unused_and_empty_sets_are_doubted() -> None:
    found = warnings("  default: {egress: deny}", SET % ("s", "{files: [/empty]}"))
    assert found == [
        'a.yaml:8:1: metadata.name: set "s" is used by no rule',
        'a.yaml:8:1: spec: set "s" holds no address',
    ]


def test_policy_without_rules_is_doubted() -> None:
    assert warnings("  mode: audit") == ['a.yaml:1:1: spec: policy "a" decides nothing: it has no rules and no default']


def test_subject_that_takes_all_away_is_doubted() -> None:
    text = f"{HEAD}spec: {{subject: {{units: [a], not: {{units: [b, a.service]}}}}, default: {{bind: deny}}}}\n"
    assert [str(found) for found in parse_texts(text).warnings] == [
        'a.yaml:1:1: spec.subject: policy "a" governs nothing: `not` takes all away'
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", "to: [10.0.0.1], ports: [80]"),
        ("to: [10.0.0.0/8]", "to: [10.1.0.0/16], protocols: [tcp]"),
        ("ports: [1-100]", "ports: [80], hooks: [connect]"),
        ("to: [10.0.0.1], ports: [80, 443]", "to: [10.0.0.1], ports: [443]"),
        ("protocols: [any]", "protocols: [udp]"),
        ("to: [private, set:s]", "to: [private, set:s]"),
    ],
)
def test_shadowed_rule_is_doubted(first: str, second: str) -> None:
    spec = f"  egress:\n    - {{action: allow, {first}}}\n    - {{action: deny, {second}}}"
    found = warnings(spec, SET % ("s", "{addresses: [11.0.0.1]}") if "set:" in first else "")
    assert found == ["a.yaml:8:7: spec.egress[1]: is never reached: egress[0] (line 7) matches all that it matches"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("to: [10.0.0.1]", "to: [10.0.0.2]"),
        ("to: [10.0.0.0/8]", "to: [any]"),
        ("ports: [80]", "ports: [80, 81]"),
        ("hooks: [connect]", "protocols: [tcp]"),
        ("protocols: [tcp]", "hooks: [connect]"),
        ("to: [0.0.0.0/0]", 'to: ["::1"]'),
    ],
)
def test_rule_that_is_reached_is_not_doubted(first: str, second: str) -> None:
    assert warnings(f"  egress:\n    - {{action: allow, {first}}}\n    - {{action: deny, {second}}}") == []


def test_ephemeral_is_a_port_of_its_own_when_shadowing() -> None:
    rule = "    - {action: allow, ports: [%s]}\n"
    assert warnings("  bind:\n" + rule % "1-65535" + rule % "ephemeral") == []
    assert len(warnings("  bind:\n" + rule % "1-65535, ephemeral" + rule % "80, ephemeral")) == 1


def test_other_doubts() -> None:
    found = warnings(
        "  egress:\n    - {action: pass, to: [0.0.0.0], log: true}\n"
        "    - {action: deny, to: [10.0.0.1], except: [private]}"
    )
    assert [message.split(": ", 1)[1] for message in found] == [
        "spec.egress[0].log: has no effect: a pass decides nothing",
        "spec.egress[0].to: 0.0.0.0 is one address, and a call to it is judged as one to 127.0.0.1: "
        "did you mean 0.0.0.0/0 or any?",
        "spec.egress[1]: matches no address",
    ]
