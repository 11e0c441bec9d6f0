# SPDX-License-Identifier: Apache-2.0
"""Records of the ring, from the bytes that the C structs have to values."""

from __future__ import annotations

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.record import CgroupRecord, FlowRecord, address_text, decode

V6 = 0x20010DB8 << 96 | 7


def flow_bytes(
    *, family: int = 6, address: int = V6, flags: int = 0, comm: bytes = b"curl", local: tuple[int, int] = (0, 1)
) -> bytes:
    halves = (address >> 64, address & (1 << 64) - 1)
    key = abi.FLOW_KEY.pack(3, 9, 10, 6, 443, abi.HOOK_CONNECT, family, flags, 111, 0, 4711, *halves)
    value = abi.FLOW_VALUE.pack(50, 8, 100, 200, 300, 4711, 4712, *local, 77, 1000, 5000, 0, 0, 0, comm)
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
        errno=111,
        cgroup_id=4711,
        task_cgroup_id=4711,
        socket_cgroup_id=4712,
        local_address=1,
        local_port=5000,
        first_ns=200,
        last_ns=300,
        pid=77,
        uid=1000,
        comm="curl",
    )
    assert (record.address_text, record.local_address_text) == ("2001:db8::7", "::1")


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        (abi.FLOW_DENIED, "denied"),
        (abi.FLOW_SHADOW_DENIED, "shadow_denied"),
        (abi.FLOW_BY_SOCKET, "by_socket"),
        (abi.FLOW_COLLECTED, "collected"),
    ],
)
def test_a_flag_sets_its_field_and_no_other(flag: int, field: str) -> None:
    record = decode(flow_bytes(flags=flag))
    names = ("denied", "shadow_denied", "by_socket", "collected")
    assert [name for name in names if getattr(record, name)] == [field]


def test_an_ipv4_address_is_in_the_low_half() -> None:
    record = decode(flow_bytes(family=4, address=0x0A000001, local=(0, 0x7F000001)))
    assert isinstance(record, FlowRecord)
    assert (record.address, record.address_text, record.local_address_text) == (0x0A000001, "10.0.0.1", "127.0.0.1")


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
