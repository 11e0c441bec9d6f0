# SPDX-License-Identifier: Apache-2.0
"""What the benchmark compares is the same for all, and its page says what was measured."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from bench import denylist, page_calls, page_sizes, prefixes, rulesets
from bench.doubts import doubts

COUNT = 300
QUIET: dict[str, Any] = {"load_before": 0.1, "foreign_programs": 0, "counts_instructions": True, "left_out": []}


def covers(listed: tuple[prefixes.Prefix, ...], address: int) -> bool:
    family = listed[0][0]
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return any(kind(address) in ipaddress.ip_network(prefixes.written(prefix)) for prefix in listed)


@pytest.mark.parametrize("family", [4, 6])
def test_keys_are_in_prefixes_or_in_none(family: int) -> None:
    listed = prefixes.random_prefixes(family, COUNT)
    assert len(set(listed)) == COUNT
    assert all(covers(listed, address) for address in prefixes.inside(listed, 50))
    assert not any(covers(listed, address) for address in prefixes.outside(listed, 50))


@pytest.mark.parametrize("family", [4, 6])
def test_keys_of_rules_match_them_or_none(family: int) -> None:
    rules = rulesets.rules(family, COUNT)
    held = tuple(rule.prefix for rule in rules if rule.prefix)
    for address, port in rulesets.matching(rules, 50):
        assert covers(held, address)
        assert any(rule.first_port <= port <= rule.last_port for rule in rules)
    assert all(rule.first_port > rulesets.FREE_PORT for rule in rules)
    assert {port for _, port in rulesets.matching_none(rules, 50)} == {rulesets.FREE_PORT}


def test_list_leaves_out_what_is_asked_for() -> None:
    listed = denylist.listed(COUNT)
    assert len(set(listed)) == COUNT
    blocks = [ipaddress.ip_network(prefixes.written(prefix)) for prefix in listed]
    assert all(int(block.network_address) >> 24 == 127 and int(block.broadcast_address) & 128 == 0 for block in blocks)
    assert all(covers(listed, address) for address in denylist.samples(listed))


def test_everybody_is_told_the_whole_list() -> None:
    listed = denylist.listed(3)
    texts = [
        denylist.as_rules(listed, "x").decode(),
        denylist.nft_rules(listed, "a/x"),
        denylist.nft_set(listed, "a/x"),
        denylist.iptables(listed, "a/x"),
        denylist.firewalld_set(listed),
        "".join(denylist.unit_lines(listed, a_line=2)),
    ]
    for text in texts:
        assert all(text.count(prefixes.written(prefix)) == 1 for prefix in listed), text


def row(setting: str, size: int, ns: float) -> dict[str, Any]:
    ratio = {"ratio": ns / 100, "low": ns / 100, "high": ns / 100}
    return {"setting": setting, "size": size, "operation": "spread", "ns": ns, "to_none": ratio}


def test_page_shows_what_was_measured_and_nothing_else() -> None:
    found = {"peers": {"rows": [row("none", 1, 100), row("iptables", 1, 110), row("iptables", 1000, 900)]}}
    plots = page_sizes.plots(found)
    assert list(plots) == ["peers-spread"]
    assert plots["peers-spread"].points == {"none": [(1, 100)], "iptables": [(1, 110), (1000, 900)]}
    text = "\n".join(page_sizes.sections(found, plots))
    assert "| iptables | 110, 1.100 [1.100 1.100] | 900, 9.000 [9.000 9.000] |" in text
    assert "| none | 100, 1.000 [1.000 1.000] |  |" in text
    assert "## Look-ups" not in text
    assert not list(page_calls.sections(found, plots))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"load_before": 1.5}, "load of 1.5"),
        ({"foreign_programs": 2}, "2 programs of others"),
        ({"counts_instructions": False}, "instructions"),
        ({"left_out": ["curves"]}, "curves was left out"),
    ],
)
def test_page_doubts_a_run_that_was_not_quiet(change: dict[str, Any], word: str) -> None:
    assert not list(doubts(QUIET))
    (line,) = doubts(QUIET | change)
    assert word in line
