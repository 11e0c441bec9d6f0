# SPDX-License-Identifier: Apache-2.0
"""Records of the event ring as values: numbers as they are, addresses as integers and as text.

Must not know names: of rules, policies, cgroups, protocols or errnos.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.raw import RawFlow, raw_flow


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """`count` calls of one kind (struct cgn_flow_record). Times are CLOCK_BOOTTIME; what belongs to one call, such as
    `pid`, is of the last one. `address` is the destination, or the local address that a bind asked for; of a UNIX
    socket it is a hash of the name. `new_address` and `new_port` are where a rewritten call went."""

    count: int
    generation: int
    rule_id: int
    shadow_rule_id: int
    protocol: int  # IPPROTO_*
    hook: int  # abi.HOOK_*
    family: int  # abi.FAMILY_*
    address: int
    port: int
    denied: bool
    shadow_denied: bool
    by_socket: bool
    collected: bool  # many destinations in one record: address and port are 0
    rewritten: bool  # the enforced verdict sent the call elsewhere
    shadow_rewritten: bool
    errno: int
    reason: int  # abi.REASON_*: why a call that the rules let pass was denied
    type: int  # SOCK_* of a new socket (abi.HOOK_CREATE), else 0
    cgroup_id: int  # of the identity that decided
    task_cgroup_id: int
    socket_cgroup_id: int
    local_address: int
    local_port: int
    new_address: int
    new_port: int
    name: bytes  # of a UNIX socket as the call gave it, else empty
    first_ns: int
    last_ns: int
    pid: int
    uid: int
    comm: str

    @property
    def address_text(self) -> str:
        return address_text(self.family, self.address)

    @property
    def local_address_text(self) -> str:
        return address_text(self.family, self.local_address)

    @property
    def new_address_text(self) -> str:
        return address_text(self.family, self.new_address)


@dataclass(frozen=True, slots=True)
class CgroupRecord:
    """A governed cgroup came, or `error` (an errno) kept one from being labelled (struct cgn_cgroup_record)."""

    error: int
    cgroup_id: int
    parent_id: int
    name: str  # bytes that are not UTF-8 are kept as surrogates


class _Key(NamedTuple):
    """struct cgn_flow_key, member by member."""

    generation: int
    rule: int
    shadow_rule: int
    protocol: int
    port: int
    hook: int
    family: int
    flags: int
    errno_: int
    reason: int
    type: int
    reserved: int
    cgroup_id: int
    high: int
    low: int


class _Value(NamedTuple):
    """struct cgn_flow_value, member by member."""

    calls: int
    reported: int
    window_start_ns: int
    first_ns: int
    last_ns: int
    task_cgroup_id: int
    socket_cgroup_id: int
    local_high: int
    local_low: int
    pid: int
    uid: int
    local_port: int
    new_port: int
    name_length: int
    reserved: int
    comm: bytes
    new_high: int
    new_low: int
    name: bytes


def decode(data: bytes | memoryview) -> FlowRecord | CgroupRecord:
    """One record of the ring; bytes behind it are ignored. ValueError for one of an unknown type, or cut short."""
    raw = bytes(data)
    kind = int.from_bytes(raw[:4], abi.BYTE_ORDER)
    if (flow := raw_flow(raw)) is not None:
        return decode_flow(flow)
    if kind == abi.RECORD_CGROUP and len(raw) >= abi.CGROUP_RECORD.size:
        _, error, cgroup_id, parent_id, name = abi.CGROUP_RECORD.unpack(raw[: abi.CGROUP_RECORD.size])
        return CgroupRecord(-error, cgroup_id, parent_id, _text(name, "surrogateescape"))
    raise ValueError(f"decode record: type {kind} of {len(raw)} bytes")


def address_text(family: int, address: int) -> str:
    """An address as people write it; "" for a UNIX socket, which has a name instead."""
    if family == abi.FAMILY_UNIX:
        return ""
    return str(ipaddress.IPv4Address(address) if family == 4 else ipaddress.IPv6Address(address))


def decode_flow(flow: RawFlow) -> FlowRecord:
    """Everything that the kernel wrote of it."""
    key = _Key(*abi.FLOW_KEY.unpack(flow.key))
    value = _Value(*abi.FLOW_VALUE.unpack(flow.value))
    return FlowRecord(
        count=flow.calls,
        generation=key.generation,
        rule_id=key.rule,
        shadow_rule_id=key.shadow_rule,
        protocol=key.protocol,
        hook=key.hook,
        family=key.family,
        address=_address(key.family, key.high, key.low),
        port=key.port,
        denied=bool(key.flags & abi.FLOW_DENIED),
        shadow_denied=bool(key.flags & abi.FLOW_SHADOW_DENIED),
        by_socket=bool(key.flags & abi.FLOW_BY_SOCKET),
        collected=bool(key.flags & abi.FLOW_COLLECTED),
        rewritten=bool(key.flags & abi.FLOW_REWRITTEN),
        shadow_rewritten=bool(key.flags & abi.FLOW_SHADOW_REWRITTEN),
        errno=key.errno_,
        reason=key.reason,
        type=key.type,
        cgroup_id=key.cgroup_id,
        task_cgroup_id=value.task_cgroup_id,
        socket_cgroup_id=value.socket_cgroup_id,
        local_address=_address(key.family, value.local_high, value.local_low),
        local_port=value.local_port,
        new_address=_address(key.family, value.new_high, value.new_low),
        new_port=value.new_port,
        name=value.name[: value.name_length],
        first_ns=value.first_ns,
        last_ns=value.last_ns,
        pid=value.pid,
        uid=value.uid,
        comm=_text(value.comm, "backslashreplace"),
    )


def _address(family: int, high: int, low: int) -> int:
    return low & 0xFFFFFFFF if family == 4 else high << 64 | low


def _text(raw: bytes, errors: str) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", errors)
