# SPDX-License-Identifier: Apache-2.0
"""The image's judge: two identities, audit, explanations, and denying where an image cannot be right."""

from __future__ import annotations

from array import array
from dataclasses import replace
from random import Random

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ExplainedStep, ImageReader, Verdict
from cgnetd.datapath.label import Label, child_label, root_label
from cgnetd.datapath.reader import CorruptImageError
from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Flow,
    Hook,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Range,
    Rule,
    Section,
    Subject,
    Where,
)

WHERE = Where("p.yaml", 1)
SUBJECT = Subject((Pattern(PatternKind.PATH, "/**"),))
BOTH = frozenset({Hook.CONNECT, Hook.SENDMSG})
CALL = Flow(Hook.CONNECT, Protocol.TCP, 4, 0x0A000001, 443)
BIND_ALL = Flow(Hook.BIND, Protocol.TCP, 6, 0, 80)
ANY_V4 = AddressRanges(v4=((0, (1 << 32) - 1),))
ANY_V6 = AddressRanges(v6=((0, (1 << 128) - 1),))
CORRUPT = Verdict(True, 1, abi.RULE_CORRUPT, abi.RULE_CORRUPT, True, False)


def policy(name: str, action: Action = Action.PASS, *rules: Rule, audit: bool = False) -> Policy:
    egress = tuple(rule for rule in rules if rule.section is Section.EGRESS)
    bind = tuple(rule for rule in rules if rule.section is Section.BIND)
    return Policy(name, SUBJECT, WHERE, audit=audit, egress=egress, bind=bind, default_egress=action)


def bind_rule(action: Action, *ports: Range, addresses: AddressRanges | None = None, ephemeral: bool = False) -> Rule:
    listed = ports if ports or ephemeral else None
    return Rule("b", Section.BIND, action, WHERE, addresses, None, listed, ephemeral, errno=13)


def reader_of(*policies: Policy, default_action: Action = Action.ALLOW) -> ImageReader:
    image = compile_image(PolicySet(policies), default_action=default_action, generation=1)
    return ImageReader(image.cells)


def label(*policies: int) -> Label:
    return Label(0, policies)


def test_nobody_is_governed_and_nothing_is_denied() -> None:
    reader = reader_of(policy("a", Action.DENY), default_action=Action.DENY)
    nothing = Verdict(False, 0, abi.RULE_DEFAULT, abi.RULE_DEFAULT, False, False)
    assert reader.judge(None, None, CALL) == reader.judge(label(), label(), CALL) == nothing


def test_default_action_speaks_where_no_policy_decides() -> None:
    reader = reader_of(policy("a"), default_action=Action.DENY)
    assert reader.judge(label(0), None, CALL) == Verdict(True, 1, abi.RULE_DEFAULT, abi.RULE_DEFAULT, True, False)


def test_either_identity_can_deny_and_the_task_is_asked_first() -> None:
    reader = reader_of(policy("a", Action.ALLOW), policy("b", Action.DENY), policy("c", Action.DENY))
    allow, deny, other = label(0), label(1), label(2)
    ids = {"a": 4, "b": 5, "c": 6}

    def judged(task: Label | None, socket: Label | None) -> tuple[int, bool, bool]:
        verdict = reader.judge(task, socket, CALL)
        return verdict.rule_id, verdict.denied, verdict.by_socket

    assert judged(allow, deny) == (ids["b"], True, True)
    assert judged(deny, allow) == (ids["b"], True, False)
    assert judged(deny, other) == (ids["b"], True, False)
    assert judged(allow, allow) == (ids["a"], False, False)
    assert judged(None, allow) == judged(label(), allow) == (ids["a"], False, True)
    assert judged(allow, None) == (ids["a"], False, False)


def test_an_audit_policy_shapes_only_the_shadow() -> None:
    reader = reader_of(policy("a", Action.DENY, audit=True), policy("b", Action.ALLOW))
    assert reader.judge(label(0, 1), None, CALL) == Verdict(False, 0, 5, 4, True, False)
    assert reader.judge(label(0), None, CALL) == Verdict(False, 0, abi.RULE_DEFAULT, 4, True, False)


def test_an_overflowed_label_denies() -> None:
    verdict = reader_of(policy("a", Action.ALLOW)).judge(Label(0, overflow=True), None, CALL)
    assert (verdict.denied, verdict.errno, verdict.rule_id) == (True, 1, abi.RULE_OVERFLOW)


@pytest.mark.parametrize(
    ("rules", "at_bind", "picked", "after"),
    [
        ((bind_rule(Action.DENY, (8000, 8999)), bind_rule(Action.ALLOW, ephemeral=True)), 5, 8080, 4),
        ((bind_rule(Action.ALLOW, ephemeral=True), bind_rule(Action.DENY, (8000, 8999))), 4, 8080, 4),
        ((bind_rule(Action.DENY, (8000, 8999)),), 0, 9000, 0),
        ((bind_rule(Action.DENY, (8000, 8999)),), 0, 8999, 4),
        ((bind_rule(Action.ALLOW),), 4, 1, 4),
    ],
)
def test_a_picked_port_is_judged_by_the_earlier_of_port_and_ephemeral(
    rules: tuple[Rule, ...], at_bind: int, picked: int, after: int
) -> None:
    reader = reader_of(policy("a", Action.PASS, *rules))
    bind = Flow(Hook.BIND, Protocol.TCP, 4, 0x7F000001, 0)
    assert reader.judge(label(0), None, bind).rule_id == at_bind
    picked_by_kernel = replace(bind, hook=Hook.POST_BIND, port=picked)
    assert reader.judge(label(0), None, picked_by_kernel).rule_id == after


def test_a_bind_to_both_families_is_judged_as_both() -> None:
    v4_only = reader_of(policy("a", Action.PASS, bind_rule(Action.DENY, addresses=ANY_V4)))
    assert v4_only.judge(label(0), None, BIND_ALL).errno == 13
    assert not v4_only.judge(label(0), None, replace(BIND_ALL, v6_only=True)).denied
    allowed = reader_of(policy("a", Action.PASS, bind_rule(Action.ALLOW, addresses=ANY_V6)))
    assert allowed.judge(label(0), None, BIND_ALL).rule_id == abi.RULE_FIRST


def test_explain_tells_every_policy_walked_up_to_the_one_that_decides() -> None:
    reader = reader_of(policy("a"), policy("b", Action.DENY, audit=True), policy("c", Action.ALLOW), policy("d"))
    assert reader.explain(label(0, 1, 2, 3), CALL) == (
        ExplainedStep(0, None, Action.PASS, False),
        ExplainedStep(1, 4, Action.DENY, True),
        ExplainedStep(2, 5, Action.ALLOW, False),
    )


def test_explain_takes_the_family_that_decides_of_a_bind_to_both() -> None:
    reader = reader_of(policy("a", Action.PASS, bind_rule(Action.DENY, addresses=ANY_V4)))
    assert reader.explain(label(0), BIND_ALL) == (ExplainedStep(0, 4, Action.DENY, False),)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (abi.IMAGE_COUNTS, 0),
        (abi.IMAGE_RULES, 1 << 31),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(1 << 30, 0)),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(0, abi.TABLE_SKIP + 1 << abi.NODE_SHIFT | 1)),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(0, 1 << abi.NODE_SHIFT)),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(1 << 30, abi.NODE_INDEX | 16)),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(1 << 31 | 99, abi.NODE_DENSE | 16 << abi.DENSE_SHIFT)),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(1 << 30, abi.NODE_DENSE | 16 << abi.DENSE_SHIFT | 1)),
        (abi.IMAGE_HEADER + abi.POLICY_V4, abi.cell(1 << 30, abi.NODE_DENSE | 16 << abi.DENSE_SHIFT | 9)),
        (abi.IMAGE_HEADER + abi.POLICY_ROWS, 0),
        (abi.IMAGE_HEADER + abi.POLICY_BASE, abi.cell(0xFFFFFFFF, abi.RULE_FIRST)),
        (abi.IMAGE_HEADER + abi.POLICY_BASE, abi.cell(0, 99)),
    ],
)
def test_a_header_that_cannot_be_right_denies(cell: int, value: int) -> None:
    cells = compile_image(PolicySet((policy("a", Action.ALLOW),)), default_action=Action.ALLOW, generation=1).cells
    assert not ImageReader(cells).judge(label(0), None, CALL).denied
    cells[cell] = value
    assert ImageReader(cells).judge(label(0), None, CALL) == CORRUPT


@pytest.mark.parametrize("place", [0, 1 << 30], ids=["at the same cell", "beyond the end"])
def test_an_index_of_ports_that_leads_nowhere_denies(place: int) -> None:
    cells = compile_image(PolicySet((policy("a", Action.ALLOW),)), default_action=Action.ALLOW, generation=1).cells
    at = abi.hi(cells[abi.IMAGE_HEADER + abi.POLICY_ROWS])  # of the row for any address
    blob = abi.hi(cells[abi.IMAGE_HEADER + abi.POLICY_BASE])
    cells[blob + at] = abi.cell(place or at, abi.PORTS_INDEX | 15)
    assert ImageReader(cells).judge(label(0), None, CALL) == CORRUPT


def test_a_policy_that_is_not_there_denies() -> None:
    assert reader_of(policy("a", Action.ALLOW)).judge(label(1), None, CALL) == CORRUPT


def test_a_corrupt_audit_policy_denies_too() -> None:
    image = compile_image(
        PolicySet((policy("a", Action.ALLOW, audit=True),)), default_action=Action.ALLOW, generation=1
    )
    image.cells[abi.IMAGE_HEADER + abi.POLICY_ROWS] = 0
    assert ImageReader(image.cells).judge(label(0), None, CALL) == CORRUPT


def test_a_reference_of_zero_denies() -> None:
    image = compile_image(PolicySet((policy("a", Action.ALLOW),)), default_action=Action.ALLOW, generation=1)
    socket = Flow(Hook.SOCKET, Protocol.ICMP, 4, 0, 0)
    assert not ImageReader(image.cells).judge(label(0), None, socket).denied
    image.cells[abi.IMAGE_HEADER + abi.POLICY_OPAQUE + abi.PROTO_ICMP] = abi.REF_CORRUPT
    assert ImageReader(image.cells).judge(label(0), None, socket) == CORRUPT


def random_image(random: Random) -> array[int]:
    edges = sorted(random.sample(range(1 << 16), 80))
    ranges = AddressRanges(v4=tuple((a << 16, b << 16) for a, b in zip(edges[::2], edges[1::2], strict=True)))
    rules = [
        Rule("r", Section.EGRESS, Action.DENY, WHERE, ranges, None, ((i * 9 + 1, i * 9 + 4),), hooks=BOTH)
        for i in range(20)
    ]
    policies = tuple(policy(name, Action.ALLOW, *rules) for name in ("a", "b"))
    return compile_image(PolicySet(policies), default_action=Action.ALLOW, generation=1).cells


def test_an_image_with_any_cell_overwritten_gives_a_verdict_or_is_found_out() -> None:
    random = Random(20)
    good = random_image(random)
    used = max(place for place, cell in enumerate(good) if cell) + 1
    denied = 0
    for _ in range(3000):
        cells = good[:]
        for _ in range(random.randint(1, 4)):
            cells[random.randrange(used)] = random.choice([0, random.getrandbits(64), random.getrandbits(12)])
        reader = ImageReader(cells)
        flow = replace(CALL, address=random.getrandbits(32), port=random.randint(0, 200))
        denied += reader.judge(label(0, 1), label(1), flow).rule_id == abi.RULE_CORRUPT
        try:
            chain = child_label(reader, root_label(reader), b"web.service")
        except CorruptImageError:
            continue
        assert len(chain.policies) <= abi.CHAIN_MAX
    assert denied > 50


@pytest.mark.parametrize("damage", ["magic", "version", "short", "long", "empty"])
def test_check_finds_what_is_not_an_image_of_this_abi(damage: str) -> None:
    cells = compile_image(PolicySet(), default_action=Action.ALLOW, generation=1).cells
    match damage:
        case "magic":
            cells[abi.IMAGE_MAGIC] ^= 1 << 40
        case "version":
            cells[abi.IMAGE_MAGIC] += 1
        case "short":
            cells = cells[:-1]
        case "long":
            cells.append(0)
        case "empty":
            cells = array("Q")
    with pytest.raises(CorruptImageError, match="read image"):
        ImageReader(cells).check()


def test_an_image_is_read_from_any_memory() -> None:
    cells = compile_image(PolicySet((policy("a", Action.DENY),)), default_action=Action.ALLOW, generation=1).cells
    for memory in (cells, cells.tobytes(), bytearray(cells.tobytes()), memoryview(cells), memoryview(cells.tobytes())):
        assert ImageReader(memory).judge(label(0), None, CALL).denied
