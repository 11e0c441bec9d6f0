# SPDX-License-Identifier: Apache-2.0
"""Records of the event ring as values: numbers as they are, addresses as integers and as text.

Must not know names: of rules, policies, cgroups, protocols or errnos.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from cgnetd.datapath import abi


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """`count` calls of one kind (struct cgn_flow_record). Times are CLOCK_BOOTTIME; what belongs to one call, such as
    `pid`, is of the last one. `address` is the destination, or the local address that a bind asked for."""

    count: int
    generation: int
    rule_id: int
    shadow_rule_id: int
    protocol: int  # IPPROTO_*
    hook: int  # abi.HOOK_*
    family: int  # 4 or 6
    address: int
    port: int
    denied: bool
    shadow_denied: bool
    by_socket: bool
    collected: bool  # many destinations in one record: address and port are 0
    errno: int
    cgroup_id: int  # of the identity that decided
    task_cgroup_id: int
    socket_cgroup_id: int
    local_address: int
    local_port: int
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


@dataclass(frozen=True, slots=True)
class CgroupRecord:
    """A governed cgroup came, or `error` (an errno) kept one from being labelled (struct cgn_cgroup_record)."""

    error: int
    cgroup_id: int
    parent_id: int
    name: str  # bytes that are not UTF-8 are kept as surrogates


def decode(data: bytes | memoryview) -> FlowRecord | CgroupRecord:
    """One record of the ring; bytes behind it are ignored. ValueError for one of an unknown type, or cut short."""
    raw = bytes(data)
    kind = int.from_bytes(raw[:4], abi.BYTE_ORDER)
    if kind == abi.RECORD_FLOW and len(raw) >= abi.FLOW_RECORD.size:
        return _flow(raw[: abi.FLOW_RECORD.size])
    if kind == abi.RECORD_CGROUP and len(raw) >= abi.CGROUP_RECORD.size:
        _, error, cgroup_id, parent_id, name = abi.CGROUP_RECORD.unpack(raw[: abi.CGROUP_RECORD.size])
        return CgroupRecord(-error, cgroup_id, parent_id, _text(name, "surrogateescape"))
    raise ValueError(f"decode record: type {kind} of {len(raw)} bytes")


def address_text(family: int, address: int) -> str:
    """An address as people write it."""
    return str(ipaddress.IPv4Address(address) if family == 4 else ipaddress.IPv6Address(address))


def _flow(raw: bytes) -> FlowRecord:
    _, _, count, key, value = abi.FLOW_RECORD.unpack(raw)
    generation, rule, shadow_rule, protocol, port, hook, family, flags, errno, _, cgroup_id, high, low = (
        abi.FLOW_KEY.unpack(key)
    )
    _, _, _, first_ns, last_ns, task_id, socket_id, local_high, local_low, pid, uid, local_port, *_, comm = (
        abi.FLOW_VALUE.unpack(value)
    )
    return FlowRecord(
        count=count,
        generation=generation,
        rule_id=rule,
        shadow_rule_id=shadow_rule,
        protocol=protocol,
        hook=hook,
        family=family,
        address=_address(family, high, low),
        port=port,
        denied=bool(flags & abi.FLOW_DENIED),
        shadow_denied=bool(flags & abi.FLOW_SHADOW_DENIED),
        by_socket=bool(flags & abi.FLOW_BY_SOCKET),
        collected=bool(flags & abi.FLOW_COLLECTED),
        errno=errno,
        cgroup_id=cgroup_id,
        task_cgroup_id=task_id,
        socket_cgroup_id=socket_id,
        local_address=_address(family, local_high, local_low),
        local_port=local_port,
        first_ns=first_ns,
        last_ns=last_ns,
        pid=pid,
        uid=uid,
        comm=_text(comm, "backslashreplace"),
    )


def _address(family: int, high: int, low: int) -> int:
    return low & 0xFFFFFFFF if family == 4 else high << 64 | low


def _text(raw: bytes, errors: str) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", errors)
