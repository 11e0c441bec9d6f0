# SPDX-License-Identifier: Apache-2.0
"""What rules do to calls, as cells: effects, services, tuning, kinds of new sockets; and as words for people."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.rules import RuleIndex
from cgnetd.datapath.services import key_of
from cgnetd.datapath.sockets import tcp_cells
from cgnetd.datapath.targets import TargetReader
from cgnetd.policy.types import (
    Action,
    Backend,
    Endpoint,
    Health,
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
    SocketOptions,
    SocketType,
    Subject,
    TcpSettings,
    Where,
)

WHERE = Where("rewrite.yaml", 2)
SUBJECT = Subject((Pattern(PatternKind.UNIT, "a.service"),))
BOTH = frozenset({Hook.CONNECT, Hook.SENDMSG})
V6 = 0x20010DB8 << 96 | 7
LOW = (1 << 64) - 1
DB = Service(
    "db",
    ((4, 0xC0000214),),
    ((Protocol.TCP, 5432), (Protocol.UDP, 53)),
    (
        Backend(Endpoint(4, 0x0A00000B, 5433), 2),
        Backend(Endpoint(4, 0x0A00000C)),
        Backend(Endpoint(6, V6, 5434), 3),
    ),
    WHERE,
    sticky_ns=600,
    health=Health(),
    errno=113,
)


def egress(action: Action = Action.REDIRECT, **fields: object) -> Rule:
    return Rule("r", Section.EGRESS, action, WHERE, hooks=BOTH, **fields)  # type: ignore[arg-type]


def bind(action: Action = Action.REWRITE, **fields: object) -> Rule:
    return Rule("b", Section.BIND, action, WHERE, **fields)  # type: ignore[arg-type]


def new_socket(**fields: object) -> Rule:
    return Rule("s", Section.SOCKET, Action.ALLOW, WHERE, **fields)  # type: ignore[arg-type]


def compiled(*rules: Rule, services: tuple[Service, ...] = (), **fields: object) -> Image:
    sections = {s: tuple(rule for rule in rules if rule.section is s) for s in Section}
    policy = Policy(
        "p",
        SUBJECT,
        WHERE,
        egress=sections[Section.EGRESS],
        bind=sections[Section.BIND],
        socket=sections[Section.SOCKET],
    )
    changed = replace(policy, **fields)  # type: ignore[arg-type]
    return compile_image(PolicySet((changed,), services=services), default_action=Action.ALLOW, generation=1)


def effect(image: Image, rule_id: int = abi.RULE_FIRST) -> array[int]:
    at = TargetReader(image.cells).effect(rule_id)
    return image.cells[at : at + abi.EFFECT_CELLS]


def flags(cells: array[int]) -> int:
    return abi.hi(cells[abi.EFFECT_FLAGS])


def test_a_redirect_holds_a_target_for_each_family() -> None:
    image = compiled(egress(redirect=Redirect(Endpoint(4, 0x7F000001, 8080), Endpoint(6, V6))))
    cells = effect(image)
    assert flags(cells) == abi.EFFECT_TO4 | abi.EFFECT_TO6
    assert cells[abi.EFFECT_TO_V4] == abi.cell(0x7F000001, 8080)
    assert list(cells[abi.EFFECT_TO_V6 : abi.EFFECT_TO_V6 + 3]) == [V6 >> 64, V6 & LOW, 0]
    rule = TargetReader(image.cells).rule(abi.RULE_FIRST)
    assert rule == abi.cell(abi.RULE_FIRST, abi.RULE_EFFECT << 8 | abi.ACTION_REWRITE)
    assert image.index.refs[abi.RULE_FIRST].to == "127.0.0.1:8080, 2001:db8::7"


def test_a_source_names_the_live_cell_of_its_address() -> None:
    source = LocalAddresses(0x0A000007, V6)
    image = compiled(egress(Action.ALLOW, source=source), new_socket(options=SocketOptions(device="wg0")))
    cells = effect(image)
    assert image.live.devices == ("wg0",)
    assert image.live.sources == ("10.0.0.7", "2001:db8::7")
    assert flags(cells) == abi.EFFECT_SOURCE4 | abi.EFFECT_SOURCE6
    assert cells[abi.EFFECT_SOURCE_V4] == abi.cell(0x0A000007, image.live.source_cell(0))
    assert cells[abi.EFFECT_SOURCE_V6 + 2] == image.live.source_cell(1)
    assert image.index.refs[abi.RULE_FIRST].to == "source 10.0.0.7, source 2001:db8::7"
    device = effect(image, abi.RULE_FIRST + 1)
    assert (flags(device), device[abi.EFFECT_LINK]) == (abi.EFFECT_DEVICE, image.live.device_cell(0))


def test_options_are_set_only_where_they_are_given() -> None:
    cells = effect(compiled(new_socket(options=SocketOptions(mark=0xFFFFFFFF, priority=0))))
    assert flags(cells) == abi.EFFECT_MARK | abi.EFFECT_PRIORITY
    assert cells[abi.EFFECT_OPTIONS] == abi.cell(0xFFFFFFFF, 0)
    image = compiled(new_socket(options=SocketOptions(mark=16, priority=6, device="wg0")))
    assert image.index.refs[abi.RULE_FIRST].to == "mark 0x10, priority 6, device wg0"


def test_a_rewrite_of_the_port_alone_keeps_every_address() -> None:
    image = compiled(bind(rewrite=Rewrite(port=8080), privileged=True))
    cells = effect(image)
    assert flags(cells) == abi.EFFECT_PRIVILEGED
    assert abi.lo(cells[abi.EFFECT_TO_V4]) == cells[abi.EFFECT_TO_V6 + 2] == 8080
    assert image.index.refs[abi.RULE_FIRST].to == "port 8080, privileged"


def test_a_rewrite_of_one_family_gives_its_port_to_both() -> None:
    cells = effect(compiled(bind(rewrite=Rewrite(LocalAddresses(v4=0x0A000007), 8080))))
    assert flags(cells) == abi.EFFECT_TO4
    assert cells[abi.EFFECT_TO_V4] == abi.cell(0x0A000007, 8080)
    assert cells[abi.EFFECT_TO_V6 + 2] == 8080


@pytest.mark.parametrize(
    ("name", "text"), [(b"/run/b", "/run/b"), (b"\0db", "@db"), (b"\0a\0\xff", "@a\\x00\\xff"), (b"/" * 108, "/" * 108)]
)
def test_a_unix_redirect_holds_its_name(name: bytes, text: str) -> None:
    image = compiled(egress(redirect=Redirect(name=name), unix=(b"/run/a",)))
    cells = effect(image)
    assert flags(cells) == abi.EFFECT_UNIX
    assert cells[abi.EFFECT_NAME] == len(name)
    assert cells[abi.EFFECT_NAME + 1 :].tobytes() == name.ljust(abi.UNIX_NAME_BYTES, b"\0")
    assert image.index.refs[abi.RULE_FIRST].to == text


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="compile redirect"):
        compiled(egress(redirect=Redirect(name=b"/" * 109), unix=(b"/run/a",)))


def test_equal_effects_are_kept_once_and_rules_without_have_none() -> None:
    to = Redirect(Endpoint(4, 1, 80), Endpoint(6, 1, 80))
    image = compiled(egress(redirect=to), egress(Action.DENY), egress(redirect=to))
    reader = TargetReader(image.cells)
    assert image.sizes.effects == 1
    assert reader.effect(abi.RULE_FIRST) == reader.effect(abi.RULE_FIRST + 2)
    index = abi.lo(image.cells[abi.IMAGE_EFFECTS])
    assert [bool(cell) for cell in image.cells[index : index + reader.rule_count]] == [*[False] * 4, True, False, True]
    assert compiled(egress(Action.DENY)).cells[abi.IMAGE_EFFECTS] == 0


def test_a_service_is_a_record_with_its_backends() -> None:
    image = compiled(egress(redirect=Redirect(service=DB)), services=(replace(DB, name="aa"), DB))
    assert effect(image)[abi.EFFECT_FLAGS] == abi.cell(abi.EFFECT_SERVICE, 1)
    assert image.index.refs[abi.RULE_FIRST].to == "service:db"
    cells, place = image.cells, image.cells[abi.IMAGE_SERVICES]
    assert abi.lo(place) == 2
    at = abi.hi(place) + abi.SERVICE_CELLS
    db = image.live.services[1]
    assert db.v4 is not None
    assert db.v6 is not None
    assert cells[at + abi.SERVICE_FLAGS] == 113
    assert cells[at + abi.SERVICE_KEY] == db.key == key_of("db")
    assert cells[at + abi.SERVICE_STICKY_NS] == 600
    assert abi.lo(cells[at + abi.SERVICE_V4]) == 2
    assert cells[at + abi.SERVICE_V4 + 1] == abi.cell(db.v4.choices, db.v4.states)
    first = abi.hi(cells[at + abi.SERVICE_V4])
    assert list(cells[first : first + 3]) == [0, 0x0A00000B, 5433]
    assert cells[first + abi.BACKEND_KEY] == key_of("10.0.0.11 5433")
    assert list(cells[first + abi.BACKEND_CELLS :][:3]) == [0, 0x0A00000C, 0]
    sixth = abi.hi(cells[at + abi.SERVICE_V6])
    assert list(cells[sixth : sixth + 3]) == [V6 >> 64, V6 & LOW, 5434]


def test_the_index_tells_how_backends_are_probed() -> None:
    live = compiled(services=(DB,)).live
    (db,) = live.services
    assert db.health == (2_000_000_000, 500_000_000, 2, 2)
    assert db.v4 is not None
    assert [(b.address, b.port, b.weight, b.probe_port) for b in db.v4.backends] == [
        ("10.0.0.11", 5433, 2, 5433),
        ("10.0.0.12", 0, 1, 5432),
    ]
    unprobed = compiled(services=(replace(DB, health=None),)).live.services[0]
    assert unprobed.health is None
    assert unprobed.v4 is not None
    assert {backend.probe_port for backend in unprobed.v4.backends} == {0}
    fixed = compiled(services=(replace(DB, health=Health(port=9)),)).live.services[0]
    assert fixed.v4 is not None
    assert {backend.probe_port for backend in fixed.v4.backends} == {9}


def test_cells_of_live_things_do_not_overlap() -> None:
    image = compiled(
        egress(redirect=Redirect(service=DB), source=LocalAddresses(1)),
        services=(replace(DB, name="aa"), DB),
    )
    taken = [0]
    for service in image.live.services:
        for _, family in service.families():
            taken += range(family.choices, family.choices + abi.CHOICES)
            taken += range(family.states, family.states + len(family.backends))
    assert taken == list(range(image.live.size)) == list(range(image.sizes.live))


def test_keys_are_the_same_in_every_generation() -> None:
    assert key_of("db") == 0x84F94E69D125DC7B
    assert key_of("db") != key_of("db2")


@pytest.mark.parametrize(
    ("rules", "needs"),
    [
        ((egress(Action.DENY),), {"egress"}),
        ((bind(Action.DENY),), {"bind"}),
        ((new_socket(),), {"socket"}),
        ((egress(Action.DENY, unix=(b"/a",)),), {"unix"}),
        ((egress(redirect=Redirect(name=b"/b"), unix=(b"/a",)),), {"unix", "unix_redirect"}),
        ((egress(redirect=Redirect(Endpoint(4, 1)), protocols=frozenset({Protocol.TCP})),), {"egress", "redirect_tcp"}),
        ((egress(redirect=Redirect(Endpoint(4, 1)), protocols=frozenset({Protocol.UDP})),), {"egress", "redirect_udp"}),
        ((egress(redirect=Redirect(Endpoint(4, 1))),), {"egress", "redirect_tcp", "redirect_udp"}),
        ((egress(Action.ALLOW, source=LocalAddresses(1)),), {"egress"}),
        ((bind(rewrite=Rewrite(port=1)),), {"bind", "bind_view"}),
        ((bind(Action.ALLOW, privileged=True),), {"bind"}),
    ],
)
def test_a_set_needs_what_its_rules_do(rules: tuple[Rule, ...], needs: set[str]) -> None:
    assert compiled(*rules).index.needs == needs


def test_defaults_and_tuning_need_their_hooks() -> None:
    assert compiled(default_socket=Action.DENY).index.needs == {"socket"}
    assert compiled(tcp=TcpSettings(initial_window=20)).index.needs == {"tcp"}
    assert compiled(tcp=TcpSettings()).index.needs == set()
    denying = compile_image(PolicySet((Policy("p", SUBJECT, WHERE),)), default_action=Action.DENY, generation=1)
    assert denying.index.needs == {"egress", "bind"}


def test_the_index_survives_its_bytes_with_all_of_this() -> None:
    image = compiled(egress(redirect=Redirect(service=DB), source=LocalAddresses(1)), services=(DB,))
    again = RuleIndex.from_bytes(image.index.to_bytes() + b"\0\0")
    assert again == image.index
    assert (again.live, again.needs) == (image.live, image.index.needs)
    unknown = image.index.to_bytes().replace(b'"redirect_tcp"', b'"levitation"')
    with pytest.raises(ValueError, match="read rule index"):
        RuleIndex.from_bytes(unknown)


def test_a_kind_of_socket_meets_the_first_rule_for_it() -> None:
    rules = (
        new_socket(families=frozenset({6}), types=frozenset({SocketType.RAW})),
        new_socket(families=frozenset({4})),
    )
    image = compiled(*rules, default_socket=Action.DENY)
    header = abi.IMAGE_HEADER
    cells = list(image.cells[header + abi.POLICY_SOCKET : header + abi.POLICY_SOCKET + abi.SOCKET_CONTEXTS])
    default = abi.REF_RULE + 2
    assert cells == [3, 3, 3, 3, default, default, 2, default]
    assert abi.hi(image.cells[header + abi.POLICY_FLAGS]) == abi.POLICY_NEW_SOCKET


def test_tuning_is_in_the_header_where_a_policy_tunes() -> None:
    image = compiled(tcp=TcpSettings("bbr", 200, 20))
    header = abi.IMAGE_HEADER
    assert image.cells[header + abi.POLICY_TCP] == abi.cell(200, 20)
    name = image.cells[header + abi.POLICY_CONGESTION : header + abi.POLICY_CONGESTION + 2]
    assert name.tobytes() == b"bbr".ljust(16, b"\0")
    assert abi.hi(image.cells[header + abi.POLICY_FLAGS]) == abi.POLICY_TUNES_TCP
    assert tcp_cells(TcpSettings()) == (0, 0, 0)
    with pytest.raises(ValueError, match="compile tcp"):
        tcp_cells(TcpSettings("x" * 16))
