# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of a policy set: shared where equal, cached where unchanged, refused where too large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.blob import compile_policy
from cgnetd.datapath.cache import BlobCache
from cgnetd.datapath.compile import Image, compile_image, image_digest
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label
from cgnetd.datapath.rules import RuleIndex
from cgnetd.errors import PolicyError
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
    Range,
    Redirect,
    Rule,
    Section,
    Service,
    SocketType,
    Subject,
    TcpSettings,
    Tier,
    Where,
)
from support.work import work

BOTH = frozenset({Hook.CONNECT, Hook.SENDMSG})
WHERE = Where("web.yaml", 3, 5)
SUBJECT = Subject((Pattern(PatternKind.UNIT, "web.service"),))


def egress(
    action: Action = Action.ALLOW, addresses: AddressRanges | None = None, *ports: Range, name: str = "r"
) -> Rule:
    return Rule(name, Section.EGRESS, action, WHERE, addresses, None, ports or None, hooks=BOTH)


def policy(*rules: Rule, name: str = "web", default: Action = Action.PASS, tier: Tier = Tier.NORMAL) -> Policy:
    return Policy(name, SUBJECT, WHERE, tier=tier, egress=rules, default_egress=default)


def compiled(*policies: Policy, cache: BlobCache | None = None, generation: int = 1) -> Image:
    return compile_image(PolicySet(policies), default_action=Action.ALLOW, generation=generation, cache=cache)


def hosts(count: int, step: int = 3) -> list[AddressRanges]:
    return [AddressRanges(v4=((0x0A000000 + i * step, 0x0A000000 + i * step),)) for i in range(count)]


def connect(address: int, port: int) -> Flow:
    return Flow(Hook.CONNECT, Protocol.TCP, 4, address, port)


def test_the_header_says_what_the_image_holds() -> None:
    image = compiled(policy(egress()), policy(egress(), name="other", tier=Tier.BASELINE), generation=7)
    cells = image.cells
    assert cells[abi.IMAGE_MAGIC] == abi.cell(abi.MAGIC, abi.ABI_VERSION)
    assert cells[abi.IMAGE_COUNTS] == abi.cell(2, abi.RULE_FIRST + 2)
    assert cells[abi.IMAGE_DEFAULT] == abi.cell(7, abi.ACTION_ALLOW)
    assert cells[abi.IMAGE_SIZE] == len(cells) == image.sizes.cells
    ImageReader(cells).check()


def test_rules_are_numbered_egress_bind_socket_defaults_policy_after_policy() -> None:
    bind = Rule("b", Section.BIND, Action.DENY, WHERE, errno=13, log=True)
    first = Policy("a", SUBJECT, WHERE, egress=(egress(name="e"),), bind=(bind,), default_egress=Action.DENY)
    sock = Rule("s", Section.SOCKET, Action.ALLOW, WHERE)
    nine = Where("b.yaml", 9)
    second = Policy(
        "b", SUBJECT, WHERE, default_bind=Action.ALLOW, default_where=nine, socket=(sock,), default_socket=Action.DENY
    )
    refs = compiled(first, second).index.refs
    assert [ref.rule_id for ref in refs] == list(range(10))
    assert [(ref.policy, ref.rule) for ref in refs[4:]] == [
        ("a", "e"),
        ("a", "b"),
        ("a", "default.egress"),
        ("b", "s"),
        ("b", "default.bind"),
        ("b", "default.socket"),
    ]
    assert [ref.rule for ref in refs[:4]] == ["default_action", "unlabelled", "corrupt", "overflow"]
    assert (refs[5].errno, refs[5].log, refs[5].line) == (13, True, 3)
    assert (refs[6].errno, refs[6].log, refs[6].line) == (1, True, 3)  # a default that denies logs
    assert (refs[8].errno, refs[8].log, refs[8].file, refs[8].line) == (0, False, "b.yaml", 9)


def test_a_rule_cell_tells_id_errno_log_and_action() -> None:
    deny = Rule("d", Section.EGRESS, Action.DENY, WHERE, hooks=BOTH, errno=111, log=True)
    reader = ImageReader(compiled(policy(deny)).cells)
    assert reader.rule(4) == abi.cell(4, 111 << 16 | abi.RULE_LOG << 8 | abi.ACTION_DENY)


def test_a_denying_default_action_is_told() -> None:
    image = compile_image(PolicySet((policy(egress()),)), default_action=Action.DENY, generation=1)
    assert image.index.refs[0].log
    assert image.index.refs[0].errno == 1
    assert abi.lo(image.cells[abi.IMAGE_DEFAULT]) == abi.ACTION_DENY


def test_a_policy_that_says_nothing_of_a_direction_is_flagged_to_be_passed() -> None:
    flags = [abi.hi(compile_policy(p).header[abi.POLICY_FLAGS]) for p in (policy(), policy(egress()))]
    assert flags == [0, abi.POLICY_EGRESS]
    assert abi.hi(compile_policy(policy(default=Action.DENY)).header[abi.POLICY_FLAGS]) == abi.POLICY_EGRESS


def test_equal_rows_port_lists_and_blobs_are_kept_once() -> None:
    scattered = [egress(Action.DENY, host, (80, 80)) for host in hosts(100)]
    one_set = AddressRanges(v4=tuple(host.v4[0] for host in hosts(100)))
    assert compile_policy(policy(egress(Action.DENY, one_set))).sizes.rows == 2
    two_ranges = [egress(Action.DENY, host, (80, 80), (90, 90)) for host in hosts(100)]
    assert compile_policy(policy(*two_ranges, *two_ranges, default=Action.ALLOW)).sizes.port_lists == 100
    alone, twins = compiled(policy(*scattered)), compiled(policy(*scattered), policy(*scattered, name="web2"))
    assert len(twins.cells) - len(alone.cells) < 200


def test_rules_that_share_addresses_are_swept_as_one() -> None:
    shared = AddressRanges(v4=tuple((i * 16, i * 16 + 7) for i in range(1000)))
    rules = [egress(Action.DENY, shared, (port, port)) for port in range(1, 200)]
    sizes = compile_policy(policy(*rules)).sizes
    assert sizes.rows == 2
    assert sizes.entries == 2000 + 1


def test_neighbouring_ranges_with_one_outcome_are_one_entry() -> None:
    halves = [egress(Action.DENY, AddressRanges(v4=((i << 24, (i << 24) + 0xFFFFFF),))) for i in range(8)]
    first_rule_only = policy(egress(Action.DENY, AddressRanges(v4=((0, (1 << 32) - 1),))), *halves)
    assert compile_policy(first_rule_only).sizes.entries == 2  # one a family


def test_a_table_answers_at_every_boundary() -> None:
    rules = [egress(Action.DENY, host, (80, 80), name=f"r{i}") for i, host in enumerate(hosts(300, step=2))]
    reader = ImageReader(compiled(policy(*rules)).cells)
    label = Label(0, (0,))
    for i, host in enumerate(hosts(300, step=2)):
        assert reader.judge(label, None, connect(host.v4[0][0], 80)).rule_id == abi.RULE_FIRST + i
        assert reader.judge(label, None, connect(host.v4[0][0] + 1, 80)).rule_id == abi.RULE_DEFAULT
        assert reader.judge(label, None, connect(host.v4[0][0], 81)).rule_id == abi.RULE_DEFAULT


def test_tables_of_ipv6_answer_on_both_sides_of_64_bits() -> None:
    edges = [1 << 64, (1 << 64) - 1, 1 << 127, (1 << 128) - 1]
    rules = [egress(Action.DENY, AddressRanges(v6=((edge, edge),)), name=f"r{i}") for i, edge in enumerate(edges)]
    many = [egress(Action.DENY, AddressRanges(v6=((i << 100, i << 100),))) for i in range(100, 200)]
    reader = ImageReader(compiled(policy(*rules, *many)).cells)
    for i, edge in enumerate(edges):
        flow = Flow(Hook.CONNECT, Protocol.UDP, 6, edge, 53)
        assert reader.judge(Label(0, (0,)), None, flow).rule_id == abi.RULE_FIRST + i


def test_the_digest_tells_everything_but_the_generation() -> None:
    one, again = compiled(policy(egress())), compiled(policy(egress()), generation=9)
    assert one.digest == again.digest == one.index.digest == image_digest(again.cells, again.index)
    renamed = replace(policy(egress()), where=Where("moved.yaml", 3))
    assert compiled(renamed).digest != one.digest
    assert compiled(policy(egress(Action.DENY))).digest != one.digest
    changed = again.cells[:]
    changed[-1] ^= 1
    assert image_digest(changed, again.index) != one.digest


def test_an_image_is_stamped_with_a_generation_without_touching_the_first() -> None:
    image = compiled(policy(egress()))
    stamped = image.with_generation(41)
    assert ImageReader(stamped.cells).generation == stamped.index.generation == 41
    assert ImageReader(image.cells).generation == image.index.generation == 1
    assert stamped.cells == compiled(policy(egress()), generation=41).cells


def test_the_index_survives_its_bytes_and_their_padding() -> None:
    index = compiled(policy(egress(name='ünï \\ "quoted"')), generation=3).index
    assert RuleIndex.from_bytes(index.to_bytes() + b"\0\0\0") == index


def test_the_bytes_of_an_index_follow_what_is_changed_about_it() -> None:
    index = compiled(policy(egress()), generation=3).index
    index.to_bytes()
    for changed in (index.with_generation(4), index.with_digest("other"), replace(index, policies=(), generation=5)):
        assert RuleIndex.from_bytes(changed.to_bytes()) == changed


@pytest.mark.parametrize("data", [b"", b"{}", b"[1,2]", b'[1,"d",[[5]],[]]', b"\xff\xfe", b"null"])
def test_an_index_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="read rule index"):
        RuleIndex.from_bytes(data)


def test_an_empty_set_is_an_image_without_policies() -> None:
    image = compiled()
    reader = ImageReader(image.cells)
    reader.check()
    assert (reader.policy_count, reader.rule_count) == (0, abi.RULE_FIRST)


def test_an_unchanged_policy_is_not_compiled_again() -> None:
    cache = BlobCache()
    built: list[str] = []

    def build(wanted: Policy) -> object:
        built.append(wanted.name)
        return compile_policy(wanted)

    policies = (policy(egress()), policy(egress(), tier=Tier.ADMIN))
    blobs = [cache.part(p, build).blob for p in policies]  # type: ignore[arg-type]
    assert built == ["web"]
    assert blobs[0] is blobs[1]
    cache.part(policy(egress(Action.DENY)), build)  # type: ignore[arg-type]
    assert built == ["web", "web"]


@pytest.mark.parametrize(
    "change",
    [
        {"action": Action.DENY},
        {"addresses": AddressRanges(v4=((1, 2),))},
        {"protocols": frozenset({Protocol.TCP})},
        {"ports": ((443, 444),)},
        {"ephemeral": True},
        {"hooks": frozenset({Hook.CONNECT})},
        {"source": LocalAddresses(1, 2)},
        {"unix": (b"/run/*",), "addresses": None, "ports": None},
        {"action": Action.REDIRECT, "redirect": Redirect(Endpoint(4, 1, 80), Endpoint(6, 1, 80))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_rule_that_matches_otherwise_is_compiled_anew(change: dict[str, Any]) -> None:
    rule = egress(Action.ALLOW, AddressRanges(v4=((1, 1),)), (443, 443))
    cache = BlobCache()
    for wanted in (policy(rule), policy(rule._replace(**change)), policy(rule._replace(**change), rule)):
        assert compiled(wanted, cache=cache).cells == compiled(wanted).cells


def test_a_rule_that_leads_elsewhere_needs_no_new_tables_but_is_seen() -> None:
    def to(port: int, backend: int) -> PolicySet:
        backends = (Backend(Endpoint(4, backend)), Backend(Endpoint(6, backend)))
        service = Service("db", ((4, 9),), ((Protocol.TCP, 80),), backends, WHERE)
        redirects = [Redirect(Endpoint(4, 1, port), Endpoint(6, 1, port)), Redirect(service=service)]
        rules = (egress(Action.REDIRECT)._replace(redirect=redirect) for redirect in redirects)
        return PolicySet((policy(*rules),), services=(service,))

    def image(wanted: PolicySet, cache: BlobCache | None = None) -> Image:
        return compile_image(wanted, default_action=Action.ALLOW, generation=1, cache=cache)

    cache, digests = BlobCache(), set()
    for wanted in (to(80, 7), to(81, 7), to(80, 8)):
        made = image(wanted, cache)
        assert made.cells == image(wanted).cells
        digests.add(made.digest)
    assert len(digests) == 3


@pytest.mark.parametrize("change", [{"families": frozenset({4})}, {"types": frozenset({SocketType.RAW})}])
def test_a_socket_rule_for_other_kinds_is_compiled_anew(change: dict[str, Any]) -> None:
    rule = Rule("s", Section.SOCKET, Action.DENY, WHERE)
    cache = BlobCache()
    for rules in ((rule,), (rule._replace(**change),), (rule, rule)):
        wanted = replace(policy(), socket=rules)
        assert compiled(wanted, cache=cache).cells == compiled(wanted).cells


def test_other_tuning_is_compiled_anew() -> None:
    cache = BlobCache()
    for tcp in (None, TcpSettings("bbr"), TcpSettings("bbr", initial_window=20)):
        wanted = replace(policy(), tcp=tcp)
        assert compiled(wanted, cache=cache).cells == compiled(wanted).cells


def test_a_policy_on_unix_sockets_alone_says_nothing_of_addresses() -> None:
    unix = egress(Action.DENY)._replace(unix=(b"/**",))
    header = compile_policy(policy(unix)).header
    assert abi.hi(header[abi.POLICY_FLAGS]) == abi.POLICY_UNIX
    both = compile_policy(policy(unix, egress(Action.DENY)))
    assert abi.hi(both.header[abi.POLICY_FLAGS]) == abi.POLICY_UNIX | abi.POLICY_EGRESS
    assert both.header[abi.POLICY_OPAQUE + abi.PROTO_UDP] == abi.REF_RULE + 1


@pytest.mark.parametrize("default", ["default_egress", "default_bind", "default_socket"])
def test_another_default_is_compiled_anew(default: str) -> None:
    cache = BlobCache()
    for action in (Action.ALLOW, Action.DENY, Action.PASS):
        wanted = replace(policy(egress()), **{default: action})  # type: ignore[arg-type]
        assert compiled(wanted, cache=cache).cells == compiled(wanted).cells


class Watched(tuple[Range, ...]):
    """Ranges that count how often they are gone through or compared, whole or in part."""

    times = 0

    def __iter__(self) -> Iterator[Range]:
        self.times += 1
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self.times += 1
        return super().__getitem__(index)

    def __eq__(self, other: object) -> bool:
        self.times += 1
        return super().__eq__(other)

    __hash__ = tuple.__hash__


def test_a_set_is_read_as_often_for_a_thousand_rules_as_for_one() -> None:
    def times(rules: int) -> int:
        ranges = Watched((i * 16, i * 16 + 7) for i in range(1000))
        shared = AddressRanges(v4=ranges)
        policies = policy(*(egress(Action.DENY, shared, (i, i)) for i in range(1, rules + 1)))
        cache = BlobCache()
        compiled(policies, cache=cache)
        compiled(policies, cache=cache)
        return ranges.times

    assert 0 < times(1000) == times(1)


def test_equal_sets_read_anew_compile_into_the_same_image() -> None:
    def read() -> Policy:
        shared = AddressRanges(v4=tuple((i * 16, i * 16 + 7) for i in range(1000)))
        return policy(*(egress(Action.DENY, shared, (i, i)) for i in range(1, 100)))

    cache = BlobCache()
    first = compiled(read(), cache=cache)
    assert compiled(read(), cache=cache).digest == first.digest


def test_a_cache_gives_what_compiling_gives() -> None:
    cache = BlobCache()
    steps = [
        (policy(egress()),),
        (policy(egress()), policy(egress(Action.DENY), name="other", default=Action.DENY)),
        (replace(policy(egress()), audit=True), policy(egress(Action.DENY), name="other", tier=Tier.BASELINE)),
        (policy(egress(Action.DENY), name="other"),),
        (),
    ]
    for policies in steps:
        assert compiled(*policies, cache=cache).cells == compiled(*policies).cells


@pytest.mark.parametrize(
    "rules",
    [
        [egress(Action.DENY, AddressRanges(v4=((i * 9, (1 << 32) - 1 - i * 9),)), (i, i)) for i in range(1, 400)],
        [egress(Action.DENY, AddressRanges(v4=((i * 9, (1 << 32) - 1 - i * 9),)), (7, 7)) for i in range(1, 400)],
        [egress(Action.DENY, AddressRanges(v6=tuple((i * 8, i * 8 + 1) for i in range(20_000))))],
    ],
    ids=["nested ranges with a port each", "nested ranges with one port", "many prefixes"],
)
def test_a_policy_that_grows_too_large_is_refused_by_name(rules: list[Rule]) -> None:
    with pytest.raises(PolicyError, match=r'^web\.yaml:3:5: policy "web" ') as caught:
        compile_policy(policy(*rules), limit_cells=30_000)
    assert caught.value.exit_code == 78


def test_policies_that_fit_one_by_one_but_not_together_are_refused() -> None:
    each = [policy(*(egress(Action.DENY, host, (i, i)) for host in hosts(50)), name=f"p{i}") for i in range(1, 60)]
    limit = len(compiled(*each[:10]).cells)
    with pytest.raises(PolicyError, match=r'policy "p\d+" brings the image above'):
        compile_image(PolicySet(tuple(each)), default_action=Action.ALLOW, generation=1, limit_cells=limit)


def test_rules_with_a_host_and_a_port_each_cost_in_proportion_to_their_number() -> None:
    rules = [egress(Action.ALLOW, host, (i % 60000 + 1, i % 60000 + 1)) for i, host in enumerate(hosts(10_000))]
    images: list[Image] = []
    whole = work(lambda: images.append(compiled(policy(*rules, default=Action.DENY))))
    assert whole < 2.5 * work(lambda: compiled(policy(*rules[::2], default=Action.DENY)))
    reader, label = ImageReader(images[0].cells), Label(0, (0,))
    assert not reader.judge(label, None, connect(0x0A000000 + 5000 * 3, 5001)).denied
    assert reader.judge(label, None, connect(0x0A000000 + 5000 * 3, 5002)).denied


def test_prefixes_cost_in_proportion_to_their_number() -> None:
    prefixes = AddressRanges(v4=tuple((i * 40_000, i * 40_000 + 255) for i in range(100_000)))
    images: list[Image] = []
    whole = work(lambda: images.append(compiled(policy(egress(Action.DENY, prefixes)))))
    half = AddressRanges(v4=prefixes.v4[::2])
    assert whole < 2.5 * work(lambda: compiled(policy(egress(Action.DENY, half))))
    assert images[0].sizes.entries == 200_002 - 1
    assert images[0].sizes.bytes < 4 << 20
