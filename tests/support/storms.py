# SPDX-License-Identifier: Apache-2.0
"""Denied calls to many addresses, and what the table of flows then holds. Must not know how room is shared."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.record import FlowRecord, decode
from cgnetd.kernel import layout
from cgnetd.kernel.quotas import Quota
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf.batch import lookup_all
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

FIRST = int(ipaddress.ip_address("127.1.0.1"))


def image(text: str) -> Image:
    result = parse([Source("a.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)


def address(number: int) -> str:
    return str(ipaddress.ip_address(FIRST + number))


def dial(first: int, count: int) -> int:
    """One connect to each of so many addresses; how many failed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        return sum(made.connect_ex((address(first + n), 9)) != 0 for n in range(count))


def storm(cgroup: PrivateCgroup, first: int, count: int) -> None:
    """One connect, denied, to each of so many addresses."""
    assert cgroup.call(lambda: dial(first, count)) == count


def wander(cgroups: Iterable[PrivateCgroup], count: int) -> None:
    """The same from each cgroup, by one process that goes from one to the next."""

    def work() -> int:
        failed = 0
        for cgroup in crowd:
            cgroup.enter()
            failed += dial(0, count)
        return failed

    crowd = list(cgroups)
    assert crowd[0].call(work) == count * len(crowd)


def flows(enforcement: Enforcement, cgroup: PrivateCgroup) -> list[FlowRecord]:
    """What the table holds of a cgroup, with all calls since it was made."""
    return [one for one in all_flows(enforcement) if one.cgroup_id == cgroup.id]


def all_flows(enforcement: Enforcement) -> list[FlowRecord]:
    head = abi.FLOW_RECORD.pack
    found = [
        decode(head(abi.RECORD_FLOW, 0, abi.FLOW_VALUE.unpack(value)[0], key, value))
        for key, value in lookup_all(enforcement.store.maps["flows"])
    ]
    return [one for one in found if isinstance(one, FlowRecord)]


def told(enforcement: Enforcement, cgroup: PrivateCgroup) -> set[str]:
    """The addresses that have a flow of their own."""
    return {one.address_text for one in flows(enforcement, cgroup) if not one.collected}


def quotas(enforcement: Enforcement) -> dict[int, Quota]:
    unpack = layout.QUOTA_KEY.unpack
    entries = lookup_all(enforcement.store.maps["quotas"])
    return {unpack(key)[0]: Quota(*layout.QUOTA.unpack(value)) for key, value in entries}


def counts(enforcement: Enforcement) -> dict[int, int]:
    """How many flows each cgroup and what is below it have, 0: everybody."""
    return {cgroup_id: quota.flows for cgroup_id, quota in quotas(enforcement).items()}


def lost(enforcement: Enforcement) -> int:
    return enforcement.store.stats()[abi.STAT_LOST]
