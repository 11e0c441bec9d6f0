# SPDX-License-Identifier: Apache-2.0
"""Records of the ring, from the bytes that the C structs have to values."""

from __future__ import annotations

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.record import CgroupRecord, FlowRecord, address_text, decode

V6 = 0x20010DB8 << 96 | 7


def halves(address: int) -> tuple[int, int]:
    return address >> 64, address & (1 << 64) - 1


def flow_bytes(
    *,
    family: int = 6,
    address: int = V6,
    flags: int = 0,
    comm: bytes = b"curl",
    local: int = 1,
    new: int = 2,
    name: bytes = b"",
) -> bytes:
    hook, errno, reason, kind = abi.HOOK_CONNECT, 111, abi.REASON_NO_BACKEND, 2
    key = abi.FLOW_KEY.pack(3, 9, 10, 6, 443, hook, family, flags, errno, reason, kind, 0, 4711, *halves(address))
    times, ids, ports = (100, 200, 300), (4711, 4712), (5000, 8080)
    value = abi.FLOW_VALUE.pack(
        50, 8, *times, *ids, *halves(local), 77, 1000, *ports, len(name), 0, comm, *halves(new), name
    )
    return abi.FLOW_RECORD.pack(abi.RECORD_FLOW, 0, 42, key, value)


def test_a_flow_record_tells_everything_of_its_calls() -> None:
    record = decode(flow_bytes(flags=abi.FLOW_DENIED))
    assert record == FlowRecord(
        count=42,
        generation=3,
        rule_id=9,
        shadow_rule_id=10,
        protocol=6,
        hook=abi.HOOK_CONNECT,
        family=6,
        address=V6,
        port=443,
        denied=True,
        shadow_denied=False,
        by_socket=False,
        collected=False,
        rewritten=False,
        shadow_rewritten=False,
        errno=111,
        reason=abi.REASON_NO_BACKEND,
        type=2,
        cgroup_id=4711,
        task_cgroup_id=4711,
        socket_cgroup_id=4712,
        local_address=1,
        local_port=5000,
        new_address=2,
        new_port=8080,
        name=b"",
        first_ns=200,
        last_ns=300,
        pid=77,
        uid=1000,
        comm="curl",
    )
    texts = (record.address_text, record.local_address_text, record.new_address_text)
    assert texts == ("2001:db8::7", "::1", "::2")


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        (abi.FLOW_DENIED, "denied"),
        (abi.FLOW_SHADOW_DENIED, "shadow_denied"),
        (abi.FLOW_BY_SOCKET, "by_socket"),
        (abi.FLOW_COLLECTED, "collected"),
        (abi.FLOW_REWRITTEN, "rewritten"),
        (abi.FLOW_SHADOW_REWRITTEN, "shadow_rewritten"),
    ],
)
def test_a_flag_sets_its_field_and_no_other(flag: int, field: str) -> None:
    record = decode(flow_bytes(flags=flag))
    names = ("denied", "shadow_denied", "by_socket", "collected", "rewritten", "shadow_rewritten")
    assert [name for name in names if getattr(record, name)] == [field]


def test_an_ipv4_address_is_in_the_low_half() -> None:
    record = decode(flow_bytes(family=4, address=0x0A000001, local=0x7F000001, new=0x0A000002))
    assert isinstance(record, FlowRecord)
    assert (record.address, record.address_text) == (0x0A000001, "10.0.0.1")
    assert (record.local_address_text, record.new_address_text) == ("127.0.0.1", "10.0.0.2")


@pytest.mark.parametrize("name", [b"/run/app.sock", b"\0abstract\0with\xff", b"\0" * 108])
def test_a_unix_socket_has_a_name_instead_of_an_address(name: bytes) -> None:
    record = decode(flow_bytes(family=abi.FAMILY_UNIX, name=name))
    assert isinstance(record, FlowRecord)
    assert record.name == name
    assert (record.address_text, record.new_address_text) == ("", "")


def test_a_name_of_any_bytes_is_text() -> None:
    record = decode(flow_bytes(comm=b"\xffx\0garbage"))
    assert isinstance(record, FlowRecord)
    assert record.comm == "\\xffx"


def test_a_cgroup_record_tells_who_came_below_whom() -> None:
    raw = abi.CGROUP_RECORD.pack(abi.RECORD_CGROUP, 0, 5, 1, b"web.service")
    assert decode(raw) == CgroupRecord(0, 5, 1, "web.service")


def test_a_cgroup_record_tells_why_labelling_failed_and_keeps_the_name_reversible() -> None:
    record = decode(abi.CGROUP_RECORD.pack(abi.RECORD_CGROUP, -7, 5, 1, b"\xff" * 255))
    assert isinstance(record, CgroupRecord)
    assert record.error == 7
    assert record.name.encode("utf-8", "surrogateescape") == b"\xff" * 255


def test_padding_behind_a_record_is_ignored() -> None:
    assert decode(flow_bytes() + bytes(8)) == decode(memoryview(flow_bytes()))


@pytest.mark.parametrize(
    "raw", [b"", b"\1", flow_bytes()[:-1], bytes(300), abi.CGROUP_RECORD.pack(2, 0, 0, 0, b"")[:-1]]
)
def test_bytes_that_are_no_record_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="decode record: type"):
        decode(raw)


@pytest.mark.parametrize(
    ("family", "address", "text"), [(4, 0, "0.0.0.0"), (4, (1 << 32) - 1, "255.255.255.255"), (6, 0, "::")]
)
def test_an_address_is_written_as_people_write_it(family: int, address: int, text: str) -> None:
    assert address_text(family, address) == text
