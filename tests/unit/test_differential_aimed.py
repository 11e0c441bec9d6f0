# SPDX-License-Identifier: Apache-2.0
"""The compiled image says what the reference semantics say at the edges of rules; and what aimed draws are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label
from cgnetd.policy.evaluate import judge
from cgnetd.policy.types import Action, Hook, Policy, Range, Rule
from support.agreement import in_words, told_by_image
from support.aimed_addresses import BITS
from support.aimed_calls import aimed_calls
from support.aimed_policies import KINDS, LAST_PORT, Sheet, aimed_sheet
from support.table_forms import list_kinds

CALLS_A_SHEET = 300
FEW_SEEDS = range(4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_judges_as_the_reference_does_at_the_edges_of_rules(kind: str) -> None:
    seed = Random().getrandbits(32)
    source = Random(f"{seed}")
    sheet = aimed_sheet(source, kind)
    image = compile_image(sheet.policies, default_action=sheet.default, generation=1)
    reader, labels = ImageReader(image.cells), [Label(0, chain) for chain in sheet.chains]
    for call in aimed_calls(source, sheet, CALLS_A_SHEET):
        both = call.socket not in (None, call.task)
        verdict = reader.judge(labels[call.task], labels[call.socket or 0] if both else None, call.flow)
        socket_chain = sheet.chain(call.socket or 0) if both else None
        decision = judge(sheet.chain(call.task), socket_chain, call.flow, sheet.default)
        assert told_by_image(image, verdict) == in_words(decision, call.flow), f"{call} of {kind}, drawn from {seed}"


@pytest.fixture(scope="module")
def sheets() -> list[Sheet]:
    """Some of each kind, the same in every run."""
    return [aimed_sheet(Random(f"{seed}"), kind) for kind in KINDS for seed in FEW_SEEDS]


def rules_of(sheets: Iterable[Sheet]) -> Iterator[tuple[Rule, ...]]:
    """Each list of rules that is searched."""
    for sheet in sheets:
        yield from (rules for policy in sheet.policies.policies for rules in (policy.egress, policy.bind))


def of_kind(sheets: Iterable[Sheet], kind: str) -> Iterator[tuple[Rule, ...]]:
    """The lists of the policies that are of this kind."""
    for sheet in sheets:
        if sheet.kind == kind:
            first: Policy = sheet.policies.policies[0]
            yield from (rules for rules in (first.egress, first.bind) if rules)


def spans(rules: Iterable[Rule], family: int) -> set[Range]:
    found = [rule.addresses for rule in rules if rule.addresses]
    return {span for each in found for span in (each.v4 if family == 4 else each.v6)}


def boundaries(rules: Iterable[Rule], family: int) -> list[int]:
    """Where a range begins, or what comes behind one."""
    return sorted({edge for first, last in spans(rules, family) for edge in (first, last + 1)})


def lengths(found: Iterable[Range], family: int) -> set[int]:
    """Of the ranges that are a prefix."""
    sizes = [(first, last - first + 1) for first, last in found]
    return {BITS[family] + 1 - size.bit_length() for first, size in sizes if not size & size - 1 and not first % size}


@pytest.mark.parametrize("family", [4, 6])
def test_rules_name_prefixes_of_every_length(sheets: list[Sheet], family: int) -> None:
    found = {span for rules in of_kind(sheets, "spines") for span in spans(rules, family)}
    assert lengths(found, family) == set(range(BITS[family] + 1))


def test_rules_name_hosts_that_differ_in_one_bit_at_every_depth(sheets: list[Sheet]) -> None:
    depths = set[int]()
    for rules in of_kind(sheets, "twins"):
        hosts = sorted(first for first, last in spans(rules, 6) if first == last)
        differences = {first ^ other for first in hosts for other in hosts}
        depths |= {128 - each.bit_length() for each in differences if each.bit_count() == 1}
    assert depths == set(range(128))


@pytest.mark.parametrize("kind", ["tree", "forest", "words"])
def test_ranges_of_rules_nest_and_touch(sheets: list[Sheet], kind: str) -> None:
    for family in (4, 6):
        met = Counter[str]()
        for rules in of_kind(sheets, kind):
            for (first, last), (begin, end) in pairwise(sorted(spans(rules, family))):
                met["touch"] += last + 1 == begin
                met["nest"] += first <= begin and end <= last
                met["apart"] += last + 1 < begin
        assert min(met["touch"], met["nest"], met["apart"]) > 10, family


def test_tables_are_of_every_size(sheets: list[Sheet]) -> None:
    for family in (4, 6):
        scattered = [len(boundaries(rules, family)) for rules in of_kind(sheets, "scattered")]
        every = {len(boundaries(rules, family)) for rules in rules_of(sheets)}
        assert {0, 2} <= every
        assert {size for size in every if 28 < size <= 32}  # a table without a root, just
        assert {size for size in every if 32 < size < 37}
        assert max(scattered) > 1 << 16
        dense = [edge >> BITS[family] - 16 for rules in of_kind(sheets, "dense") for edge in boundaries(rules, family)]
        assert max(Counter(dense).values()) > 2 * abi.BLOCK_CELLS  # in one place: more than a block holds


def table_kinds(image: Image, table: int) -> Iterator[str]:
    """The forms of the lists of a family's tables, in all policies."""
    cells = image.cells
    for number in range(abi.hi(cells[abi.IMAGE_COUNTS])):
        header = abi.IMAGE_HEADER + number * abi.POLICY_CELLS
        for direction in range(abi.DIR_TABLES):
            yield from list_kinds(cells, abi.hi(cells[header + abi.POLICY_BASE]), cells[header + table + direction])


def test_lists_are_of_every_form(sheets: list[Sheet]) -> None:
    images = [compile_image(sheet.policies, default_action=sheet.default, generation=1) for sheet in sheets]
    for table, kinds in (
        (abi.POLICY_V4, ("starts", "dense", "inline")),
        (abi.POLICY_V6, ("starts", "spans", "dense", "inline")),
    ):
        found = Counter(kind for image in images for kind in table_kinds(image, table))
        assert all(found[kind] > 100 for kind in kinds), found


def commons(image: Image) -> Iterator[int]:
    """The cells of the rows for any address."""
    cells = image.cells
    for number in range(abi.hi(cells[abi.IMAGE_COUNTS])):
        header = abi.IMAGE_HEADER + number * abi.POLICY_CELLS
        for direction in range(abi.DIR_TABLES):
            columns = cells[header + abi.POLICY_COLUMNS + direction] >> 60
            first = abi.hi(cells[header + abi.POLICY_BASE]) + abi.hi(cells[header + abi.POLICY_ROWS + direction])
            yield from cells[first : first + columns]


def test_ports_of_rules_for_any_address_have_an_index(sheets: list[Sheet]) -> None:
    images = [compile_image(sheet.policies, default_action=sheet.default, generation=1) for sheet in sheets]
    found = [cell for image in images for cell in commons(image) if not abi.hi(cell) & abi.PORTS_RANGE]
    assert sum(bool(cell & abi.PORTS_INDEX) for cell in found) > 50


def test_ports_of_rules_touch_and_meet_both_ends(sheets: list[Sheet]) -> None:
    met = Counter[str]()
    for rules in rules_of(sheets):
        ranges = sorted(span for rule in rules for span in rule.ports or ())
        met["touch"] += sum(last + 1 == begin for (_, last), (begin, _) in pairwise(ranges))
        met["1"] += sum(first == 1 for first, _ in ranges)
        met["65535"] += sum(last == LAST_PORT for _, last in ranges)
        met["all but 0"] += (1, LAST_PORT) in ranges
        met["single"] += sum(first == last for first, last in ranges)
        met["many in a rule"] += any(len(rule.ports or ()) > 40 for rule in rules)
        met["none"] += bool(rules) and all(rule.ports is None for rule in rules)
        met["ephemeral alone"] += any(rule.ephemeral and not rule.ports for rule in rules)
    assert min(met.values()) > 2, met


def test_calls_are_at_edges_and_meet_everything_that_can_become_of_one(sheets: list[Sheet]) -> None:
    met = Counter[str]()
    for number, sheet in enumerate(sheets):
        first = sheet.policies.policies[0]
        for call in aimed_calls(Random(f"{number}"), sheet, CALLS_A_SHEET):
            flow = call.flow
            outcome = judge(sheet.chain(call.task), None, flow, sheet.default).enforced
            met[f"{flow.hook.value} {outcome.action.value}"] += 1
            met[f"port {flow.port}"] += 1
            met[f"IPv{flow.family}, at an end of the line"] += flow.address in (0, (1 << BITS[flow.family]) - 1)
            met[f"{sheet.kind}, by a rule"] += outcome.policy is first and outcome.rule is not None
            met[f"{sheet.kind}, by no rule"] += outcome.rule is None
            met["socket of another cgroup"] += call.socket not in (None, call.task)
    hooks = (Hook.CONNECT, Hook.SENDMSG, Hook.BIND, Hook.POST_BIND)
    needed = {f"{hook.value} {action.value}" for hook in hooks for action in (Action.ALLOW, Action.DENY)}
    needed |= {"connect redirect", "sendmsg redirect", "bind rewrite", "socket deny", "port 0", "port 1", "port 65535"}
    needed |= {f"{kind}, by {what}" for kind in KINDS for what in ("a rule", "no rule")}
    needed |= {"IPv4, at an end of the line", "IPv6, at an end of the line", "socket of another cgroup"}
    assert {name for name in needed if met[name] < 15} == set()
