# SPDX-License-Identifier: Apache-2.0
"""Records of the kernel become events with names."""

from __future__ import annotations

import time

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.policy.types import Action, Policy, PolicySet, Rule, Section, Subject, Where
from cgnetd.service.audit import Auditor
from cgnetd.service.cgroup_paths import CgroupPaths
from cgnetd.service.events import FlowEvent, Kind, Message

WHERE = Where("/p/web.yaml", 12)
PATHS = {9: "/system.slice/nginx.service", 10: "/user.slice/user-1.slice/user@1.service/app.slice/a.scope"}


@pytest.fixture
def auditor() -> Auditor:
    rule = Rule("rest", Section.EGRESS, Action.DENY, WHERE, log=True)
    policies = PolicySet((Policy("web", Subject(()), Where("/p/web.yaml", 2), egress=(rule,)),))
    made = Auditor(CgroupPaths(1, PATHS.get))
    made.learn(compile_image(policies, default_action=Action.ALLOW, generation=7).index)
    return made


def flow(
    *,
    generation: int = 7,
    rule: int = abi.RULE_FIRST,
    protocol: int = 6,
    hook: int = abi.HOOK_CONNECT,
    flags: int = abi.FLOW_DENIED | abi.FLOW_SHADOW_DENIED,
    cgroup: int = 9,
    first_ns: int = 500,
    family: int = 4,
    reason: int = 0,
    kind: int = 0,
    name: bytes = b"",
) -> bytes:
    address = (0, 0x0A000001)
    key = abi.FLOW_KEY.pack(
        generation, rule, rule, protocol, 443, hook, family, flags, 1, reason, kind, 0, cgroup, *address
    )
    times, ids, ports = (0, first_ns, 1500), (9, 9), (5000, 8080)
    local, new = (0, 0x7F000001), (0, 0x0A000002)
    value = abi.FLOW_VALUE.pack(3, 3, *times, *ids, *local, 42, 33, *ports, len(name), 0, b"nginx", *new, name)
    return abi.FLOW_RECORD.pack(abi.RECORD_FLOW, 0, 3, key, value)


def one(auditor: Auditor, data: bytes) -> FlowEvent:
    (event,) = auditor.records([data])
    assert isinstance(event, FlowEvent)
    return event


def test_flow_gets_its_names_and_times(auditor: Auditor) -> None:
    event = one(auditor, flow())
    assert (event.rule.policy, event.rule.rule, event.rule.file, event.rule.line) == ("web", "rest", "/p/web.yaml", 12)
    assert (event.cgroup, event.unit, event.user_unit) == ("/system.slice/nginx.service", "nginx.service", "")
    assert (event.remote_address, event.remote_port) == ("10.0.0.1", 443)
    assert (event.local_address, event.local_port) == ("127.0.0.1", 5000)
    assert (event.errno, event.protocol, event.hook, event.comm, event.pid) == ("EPERM", "tcp", "connect", "nginx", 42)
    assert event.last_ns - event.first_ns == 1000
    booted_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(event.last_ns - 1500 - booted_ns) < 10**9


def test_bind_tells_the_wanted_address_as_local(auditor: Auditor) -> None:
    event = one(auditor, flow(hook=abi.HOOK_BIND))
    assert (event.local_address, event.local_port, event.remote_address, event.remote_port) == ("10.0.0.1", 443, "", 0)


def test_socket_has_no_addresses(auditor: Auditor) -> None:
    event = one(auditor, flow(hook=abi.HOOK_SOCKET, protocol=136))
    assert (event.local_address, event.remote_address, event.protocol, event.place) == ("", "", "udplite", "")


def test_collected_flow_has_no_destination(auditor: Auditor) -> None:
    event = one(auditor, flow(flags=abi.FLOW_DENIED | abi.FLOW_COLLECTED))
    assert (event.remote_address, event.place, event.collected) == ("", "many destinations", True)
    assert (event.local_address, event.local_port) == ("", 0)
    assert event.sentence().startswith("denied nginx.service connect tcp many destinations (EPERM) by policy web rule")


def test_redirected_call_tells_where_it_went(auditor: Auditor) -> None:
    event = one(auditor, flow(flags=abi.FLOW_REWRITTEN | abi.FLOW_SHADOW_REWRITTEN))
    assert (event.kind, event.redirected, event.shadow_redirected) == (Kind.REDIRECT, True, True)
    assert (event.remote_address, event.new_address, event.new_port) == ("10.0.0.1", "10.0.0.2", 8080)


@pytest.mark.parametrize("flags", [0, abi.FLOW_DENIED, abi.FLOW_SHADOW_REWRITTEN])
def test_call_that_went_where_it_wanted_has_no_new_place(auditor: Auditor, flags: int) -> None:
    event = one(auditor, flow(flags=flags))
    assert (event.new_address, event.new_port, event.new_place) == ("", 0, "")


def test_collected_redirects_have_no_new_place_either(auditor: Auditor) -> None:
    event = one(auditor, flow(flags=abi.FLOW_REWRITTEN | abi.FLOW_COLLECTED))
    assert (event.new_address, event.redirected) == ("", True)


def test_rewritten_bind_tells_both_local_addresses(auditor: Auditor) -> None:
    event = one(auditor, flow(hook=abi.HOOK_BIND, flags=abi.FLOW_REWRITTEN | abi.FLOW_SHADOW_REWRITTEN))
    assert (event.local_address, event.local_port, event.new_place) == ("10.0.0.1", 443, "10.0.0.2:8080")
    assert (event.to_json()["verdict"], event.remote_address) == ("rewrite", "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"/run/app.sock", "/run/app.sock"),
        (b"\0app", "@app"),
        (b"\0", "@"),
        (b"/run/\xff\n\xc3\xa9", "/run/\\xff\\x0a\u00e9"),
        (b"\0a\0b", "@a\\x00b"),
    ],
)
def test_name_of_a_unix_socket_is_printable(auditor: Auditor, name: bytes, text: str) -> None:
    event = one(auditor, flow(family=abi.FAMILY_UNIX, protocol=0, name=name))
    assert (event.name, event.place, event.protocol) == (text, text, "unix")
    assert (event.remote_address, event.local_address, event.remote_port, event.local_port) == ("", "", 0, 0)


@pytest.mark.parametrize(("kind", "text"), [(1, "stream"), (2, "dgram"), (3, "raw"), (10, "10"), (0, "")])
def test_new_socket_tells_its_type(auditor: Auditor, kind: int, text: str) -> None:
    event = one(auditor, flow(hook=abi.HOOK_CREATE, kind=kind))
    assert (event.hook, event.socket_type, event.place, event.remote_address) == ("create", text, text, "")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (abi.REASON_NONE, ""),
        (abi.REASON_NO_BACKEND, "no backend of the service is alive"),
        (
            abi.REASON_NO_SOURCE,
            "the host does not have the rule's source address, or the socket is bound to another one",
        ),
        (abi.REASON_NO_DEVICE, "the rule's device does not exist, or the socket is of another network namespace"),
        (abi.REASON_NO_MEMORY, "there is no room to remember what was asked for"),
        (200, "reason 200"),
    ],
)
def test_denial_after_the_rules_says_why(auditor: Auditor, number: int, text: str) -> None:
    assert one(auditor, flow(reason=number)).reason == text


def test_missing_first_time_is_the_last_one(auditor: Auditor) -> None:
    event = one(auditor, flow(first_ns=0))
    assert event.first_ns == event.last_ns


@pytest.mark.parametrize(("number", "name"), [(262, "tcp"), (58, "icmp"), (255, "raw"), (77, "77")])
def test_protocol_has_a_name_or_its_number(auditor: Auditor, number: int, name: str) -> None:
    assert one(auditor, flow(protocol=number)).protocol == name


def test_unknown_generation_still_makes_an_event(auditor: Auditor) -> None:
    assert one(auditor, flow(generation=3, rule=5)).rule.rule == "rule 5 of generation 3"
    assert one(auditor, flow(rule=5000)).rule.rule == "rule 5000 of generation 7"


def test_unit_of_a_user_manager_and_of_a_cgroup_that_came_and_went(auditor: Auditor) -> None:
    event = one(auditor, flow(cgroup=10))
    assert (event.unit, event.user_unit) == ("user@1.service", "a.scope")
    came = abi.CGROUP_RECORD.pack(abi.RECORD_CGROUP, 0, 77, 9, b"worker")
    (event_of_child,) = auditor.records([came, flow(cgroup=77)])
    assert isinstance(event_of_child, FlowEvent)
    assert event_of_child.cgroup == "/system.slice/nginx.service/worker"
    assert one(auditor, flow(cgroup=78)).cgroup == ""


def test_cgroup_that_could_not_be_labelled_is_told(auditor: Auditor) -> None:
    (message,) = auditor.records([abi.CGROUP_RECORD.pack(abi.RECORD_CGROUP, -7, 77, 9, b"worker")])
    assert isinstance(message, Message)
    assert (message.kind, message.fields["errno"]) == (Kind.LABEL_FAILED, "E2BIG")
    assert "/system.slice/nginx.service/worker" in message.text


def test_records_that_tell_of_wrong_tables_are_counted(auditor: Auditor) -> None:
    auditor.records([flow(), abi.CGROUP_RECORD.pack(abi.RECORD_CGROUP, 0, 77, 9, b"worker")])
    assert auditor.doubts == 0
    auditor.records([flow(rule=rule) for rule in (abi.RULE_UNLABELLED, abi.RULE_CORRUPT, abi.RULE_OVERFLOW)])
    assert auditor.doubts == 3
    auditor.records([abi.CGROUP_RECORD.pack(abi.RECORD_CGROUP, -7, 77, 9, b"worker")])
    assert auditor.doubts == 4


def test_garbage_is_counted(auditor: Auditor) -> None:
    assert auditor.records([b"", b"\xff" * 200]) == []
    assert auditor.undecodable == 2


def test_rules_of_long_gone_generations_are_forgotten(auditor: Auditor) -> None:
    for generation in range(8, 20):
        index = compile_image(PolicySet(), default_action=Action.ALLOW, generation=generation).index
        auditor.learn(index)
    assert one(auditor, flow()).rule.rule == f"rule {abi.RULE_FIRST} of generation 7"


def test_flow_that_waits_keeps_its_names(auditor: Auditor) -> None:
    seen = auditor.sightings([flow(cgroup=10)])
    for generation in range(8, 20):
        auditor.learn(compile_image(PolicySet(), default_action=Action.ALLOW, generation=generation).index)
    (event,) = auditor.named(seen)
    assert isinstance(event, FlowEvent)
    assert (event.rule.rule, event.user_unit) == ("rest", "a.scope")
