# SPDX-License-Identifier: Apache-2.0
"""The image's judge on calls that rules rewrite: targets, what comes before, services, identities, corrupt effects."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import MAPPED, ExplainedStep, ImageReader, Verdict
from cgnetd.datapath.label import Label
from cgnetd.datapath.reader import CorruptImageError
from cgnetd.policy.types import (
    Action,
    AddressRanges,
    Backend,
    Endpoint,
    Flow,
    Hook,
    LocalAddresses,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Protocol,
    Redirect,
    Rewrite,
    Rule,
    Section,
    Service,
    Subject,
    Where,
)

WHERE = Where("p.yaml", 1)
SUBJECT = Subject((Pattern(PatternKind.PATH, "/**"),))
BOTH = frozenset({Hook.CONNECT, Hook.SENDMSG})
ASKED, PROXY = 0xC000020A, 0x7F000001
CALL = Flow(Hook.CONNECT, Protocol.TCP, 4, ASKED, 80)
TO_PROXY = Redirect(Endpoint(4, PROXY, 8080), Endpoint(6, 1))
DB = Service(
    "db",
    ((4, ASKED),),
    ((Protocol.TCP, 80),),
    (Backend(Endpoint(4, 11, 5432)), Backend(Endpoint(4, 12)), Backend(Endpoint(6, 13))),
    WHERE,
    errno=113,
)


def host(address: int) -> AddressRanges:
    return AddressRanges(v4=((address, address),))


def rule(action: Action = Action.REDIRECT, at: AddressRanges | None = None, **fields: object) -> Rule:
    if action is Action.REDIRECT:
        fields = {"redirect": TO_PROXY, **fields}
    return Rule("r", Section.EGRESS, action, WHERE, at, hooks=BOTH, **fields)  # type: ignore[arg-type]


def policy(name: str, *rules: Rule, audit: bool = False, default: Action = Action.PASS) -> Policy:
    sections = {s: tuple(rule for rule in rules if rule.section is s) for s in Section}
    return Policy(
        name,
        SUBJECT,
        WHERE,
        audit=audit,
        egress=sections[Section.EGRESS],
        bind=sections[Section.BIND],
        default_egress=default,
    )


def compiled(*policies: Policy) -> Image:
    return compile_image(PolicySet(policies, services=(DB,)), default_action=Action.ALLOW, generation=1)


def reader_of(*policies: Policy) -> ImageReader:
    return ImageReader(compiled(*policies).cells)


def label(*policies: int) -> Label:
    return Label(0, policies)


def rewritten(rule_id: int, address: int, port: int) -> Verdict:
    return Verdict(False, 0, rule_id, rule_id, False, False, True, address, port, shadow_rewritten=True)


@pytest.mark.parametrize(
    ("flow", "address", "port"),
    [
        (CALL, PROXY, 8080),
        (replace(CALL, hook=Hook.SENDMSG, protocol=Protocol.UDP), PROXY, 8080),
        (replace(CALL, family=6, address=77), 1, 80),
    ],
)
def test_a_redirect_leads_to_the_target_of_the_family_and_keeps_a_port_it_does_not_give(
    flow: Flow, address: int, port: int
) -> None:
    assert reader_of(policy("a", rule())).judge(label(0), None, flow) == rewritten(4, address, port)


def test_what_comes_before_a_redirect_denies_its_target() -> None:
    deny = rule(Action.DENY, host(PROXY), errno=111)
    denied = Verdict(True, 111, 4, 4, True, False)
    assert reader_of(policy("a", deny, rule())).judge(label(0), None, CALL) == denied
    assert reader_of(policy("a", deny), policy("b", rule())).judge(label(0, 1), None, CALL) == denied
    default = reader_of(policy("a", rule(Action.PASS, host(ASKED)), default=Action.DENY), policy("b", rule()))
    assert default.judge(label(0, 1), None, CALL).rule_id == 5
    behind = reader_of(policy("a", rule(), deny), policy("b", deny)).judge(label(0, 1), None, CALL)
    assert behind == rewritten(4, PROXY, 8080)


def test_what_allows_the_target_before_a_redirect_ends_the_question() -> None:
    allow, deny = rule(Action.ALLOW, host(PROXY)), rule(Action.DENY, host(PROXY))
    verdict = reader_of(policy("a", allow), policy("b", deny), policy("c", rule())).judge(label(0, 1, 2), None, CALL)
    assert verdict == rewritten(6, PROXY, 8080)


def test_an_audit_policy_denies_the_target_in_the_shadow_alone() -> None:
    deny = policy("a", rule(Action.DENY, host(PROXY)), audit=True)
    verdict = reader_of(deny, policy("b", rule())).judge(label(0, 1), None, CALL)
    assert verdict == Verdict(False, 0, 5, 4, True, False, True, PROXY, 8080)
    shadow = reader_of(policy("a", rule(), audit=True)).judge(label(0), None, CALL)
    assert shadow == Verdict(False, 0, 0, 4, False, False, shadow_rewritten=True)


def test_the_socket_s_cgroup_denies_but_rewrites_nothing() -> None:
    reader = reader_of(policy("a", rule()), policy("b", rule(Action.DENY)), policy("c", rule(Action.ALLOW)))
    assert reader.judge(None, label(0), CALL) == Verdict(False, 0, 4, 4, False, True)
    assert reader.judge(label(2), label(0), CALL) == Verdict(False, 0, 6, 6, False, False)
    assert reader.judge(label(0), label(2), CALL) == rewritten(4, PROXY, 8080)
    assert reader.judge(label(0), label(1), CALL) == Verdict(True, 1, 5, 5, True, True)


def test_a_service_leads_to_the_backend_chosen_once_for_both_verdicts() -> None:
    reader = reader_of(policy("a", rule(redirect=Redirect(service=DB))))
    asked: list[tuple[int, int]] = []

    def choose(service_id: int, family: int) -> int:
        asked.append((service_id, family))
        return 0

    assert reader.judge(label(0), None, CALL, choose) == rewritten(4, 11, 5432)
    assert asked == [(0, 4)]
    assert reader.judge(label(0), None, CALL, lambda *_: 1) == rewritten(4, 12, 80)
    assert reader.judge(label(0), None, replace(CALL, family=6), lambda *_: 0) == rewritten(4, 13, 80)


def test_a_service_with_nobody_alive_denies_with_its_errno_and_says_why() -> None:
    reader = reader_of(policy("a", rule(redirect=Redirect(service=DB))))
    expected = Verdict(True, 113, 4, 4, True, False, reason=abi.REASON_NO_BACKEND)
    assert reader.judge(label(0), None, CALL, lambda *_: None) == expected


def test_the_target_that_is_judged_is_the_backend_that_was_chosen() -> None:
    reader = reader_of(policy("a", rule(Action.DENY, host(12)), rule(redirect=Redirect(service=DB))))
    assert not reader.judge(label(0), None, CALL, lambda *_: 0).denied
    assert reader.judge(label(0), None, CALL, lambda *_: 1) == Verdict(True, 1, 4, 4, True, False)


def bind_rule(at: AddressRanges | None, addresses: LocalAddresses, port: int | None = None) -> Rule:
    return Rule("b", Section.BIND, Action.REWRITE, WHERE, at, rewrite=Rewrite(addresses, port))


ANY_V4, ANY_V6 = AddressRanges(v4=((0, (1 << 32) - 1),)), AddressRanges(v6=((0, (1 << 128) - 1),))
BIND_ALL = Flow(Hook.BIND, Protocol.TCP, 6, 0, 80)


@pytest.mark.parametrize(
    ("rules", "address", "port"),
    [
        ([bind_rule(ANY_V6, LocalAddresses(v6=9), 81), bind_rule(ANY_V4, LocalAddresses(v4=8), 82)], 9, 81),
        ([bind_rule(ANY_V6, LocalAddresses(), 81), bind_rule(ANY_V4, LocalAddresses(v4=8), 82)], MAPPED | 8, 82),
        ([bind_rule(ANY_V6, LocalAddresses(), 81), bind_rule(ANY_V4, LocalAddresses(), 82)], 0, 82),
        ([bind_rule(ANY_V4, LocalAddresses(v4=8))], MAPPED | 8, 80),
        ([bind_rule(ANY_V6, LocalAddresses(), 81)], 0, 81),
    ],
)
def test_a_bind_to_both_families_goes_to_one_place(rules: list[Rule], address: int, port: int) -> None:
    verdict = reader_of(policy("a", *rules)).judge(label(0), None, BIND_ALL)
    assert (verdict.rewritten, verdict.new_address, verdict.new_port) == (True, address, port)


def test_a_bind_of_one_family_alone_is_not_judged_as_the_other() -> None:
    reader = reader_of(policy("a", bind_rule(ANY_V4, LocalAddresses(v4=8))))
    assert not reader.judge(label(0), None, replace(BIND_ALL, v6_only=True)).rewritten


def test_a_port_that_the_kernel_picked_is_not_rewritten() -> None:
    reader = reader_of(policy("a", bind_rule(None, LocalAddresses(v4=8), 81)))
    picked = Flow(Hook.POST_BIND, Protocol.TCP, 4, 0, 40000)
    assert reader.judge(label(0), None, picked) == Verdict(False, 0, 4, 4, False, False)


def name(text: bytes) -> Flow:
    return Flow(Hook.CONNECT, Protocol.OTHER, 1, 0, 0, name=text)


UNIX = rule(unix=(b"/run/*",), redirect=Redirect(name=b"\0new"))


def test_a_name_is_redirected_and_its_target_judged() -> None:
    assert reader_of(policy("a", UNIX)).judge(label(0), None, name(b"/run/a")) == rewritten(4, 0, 0)
    deny = rule(Action.DENY, unix=(b"\0n*",), errno=13)
    assert reader_of(policy("a", deny, UNIX)).judge(label(0), None, name(b"/run/a")).errno == 13


def test_a_name_that_could_be_any_is_denied_where_a_path_is_redirected() -> None:
    reader = reader_of(policy("a", UNIX))
    assert reader.judge(label(0), None, name(b"run/a")) == Verdict(True, 1, 4, 4, True, False)
    assert reader.explain(label(0), name(b"run/a")) == (ExplainedStep(0, 4, Action.DENY, False),)


def test_names_and_new_sockets_meet_no_default_action() -> None:
    image = compile_image(PolicySet((policy("a", UNIX),)), default_action=Action.DENY, generation=1)
    reader, nothing = ImageReader(image.cells), Verdict(False, 0, 0, 0, False, False)
    assert reader.judge(label(0), None, name(b"/tmp/a")) == nothing
    assert reader.judge(label(0), None, Flow(Hook.CREATE, Protocol.OTHER, 4, 0, 0)) == nothing
    assert reader.judge(label(0), None, CALL).denied


def test_a_raw_socket_could_send_what_is_redirected() -> None:
    reader = reader_of(policy("a", rule(protocols=frozenset({Protocol.UDP})), rule(Action.ALLOW)))
    raw = Flow(Hook.SOCKET, Protocol.OTHER, 4, 0, 0, raw=True)
    assert reader.judge(label(0), None, raw) == Verdict(True, 1, 4, 4, True, False)
    assert not reader.judge(label(0), None, Flow(Hook.SOCKET, Protocol.SCTP, 4, 0, 0)).denied


def test_explain_says_what_the_rule_that_rewrites_says() -> None:
    reader = reader_of(policy("a", bind_rule(ANY_V4, LocalAddresses(v4=8))), policy("b", rule()))
    assert reader.explain(label(0, 1), CALL)[-1] == ExplainedStep(1, 5, Action.REDIRECT, False)
    assert reader.explain(label(0, 1), BIND_ALL) == (ExplainedStep(0, 4, Action.REWRITE, False),)


@pytest.mark.parametrize("cell", [abi.IMAGE_EFFECTS, abi.IMAGE_SERVICES])
def test_an_effect_or_service_that_is_not_there_denies(cell: int) -> None:
    image = compiled(policy("a", rule(redirect=Redirect(service=DB))))
    assert not ImageReader(image.cells).judge(label(0), None, CALL).denied
    image.cells[cell] = 0
    assert ImageReader(image.cells).judge(label(0), None, CALL).rule_id == abi.RULE_CORRUPT


def test_a_redirect_to_no_target_of_the_family_denies() -> None:
    reader = reader_of(policy("a", rule(redirect=Redirect(v6=Endpoint(6, 1)))))
    assert reader.judge(label(0), None, CALL).rule_id == abi.RULE_CORRUPT


def test_a_rule_without_an_effect_has_none() -> None:
    with pytest.raises(CorruptImageError, match="rule 4 has no effect"):
        reader_of(policy("a", rule(Action.DENY), rule())).effect(4)


def test_an_image_with_any_cell_overwritten_gives_a_verdict() -> None:
    random, met = Random(7), set()
    service = rule(at=host(ASKED), redirect=Redirect(service=DB))
    good = compiled(policy("a", rule(Action.DENY, host(99)), UNIX, service, rule()), policy("b", rule())).cells
    flows = (CALL, name(b"/run/a"), replace(CALL, address=5), Flow(Hook.CREATE, Protocol.OTHER, 6, 0, 0))
    for _ in range(3000):
        cells = good[:]
        for _ in range(random.randint(1, 4)):
            cells[random.randrange(len(cells))] = random.choice([0, random.getrandbits(64), random.getrandbits(12)])
        verdict = ImageReader(cells).judge(label(0, 1), label(1), random.choice(flows))
        met.add((verdict.denied, verdict.rewritten, verdict.rule_id == abi.RULE_CORRUPT))
    assert {(True, False, True), (False, True, False), (False, False, False)} <= met
