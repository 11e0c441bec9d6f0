# SPDX-License-Identifier: Apache-2.0
"""Records of the kernel -> events with names: rules, cgroup paths, units, times of the wall.

In two steps, for naming takes twenty times as long as all else, and of a storm little is told: `sightings` keeps what
names will be made from, `named` makes them. Must not know where records are read from nor where events go.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from cgnetd.datapath import abi
from cgnetd.datapath.raw import RawFlow, raw_flow
from cgnetd.datapath.record import CgroupRecord, FlowRecord, decode, decode_flow
from cgnetd.datapath.rules import RuleIndex
from cgnetd.service.cgroup_paths import CgroupPaths
from cgnetd.service.clock import boottime_offset_ns
from cgnetd.service.events import FlowEvent, Kind, Message, Record, RuleName
from cgnetd.service.units import units_of
from cgnetd.service.words import errno_name, unix_name

_GENERATIONS = 3  # whose rule names are kept: records of an old one come late

_HOOKS = {
    abi.HOOK_CONNECT: "connect",
    abi.HOOK_SENDMSG: "sendmsg",
    abi.HOOK_BIND: "bind",
    abi.HOOK_POST_BIND: "post_bind",
    abi.HOOK_SOCKET: "socket",
    abi.HOOK_CREATE: "create",
}
_DOUBTFUL = (abi.RULE_UNLABELLED, abi.RULE_CORRUPT, abi.RULE_OVERFLOW)
_BINDS = (abi.HOOK_BIND, abi.HOOK_POST_BIND)
_EGRESS = (abi.HOOK_CONNECT, abi.HOOK_SENDMSG)

# IPPROTO_* by number: socket.IPPROTO_* lacks some of them.
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmp", 115: "l2tp", 132: "sctp", 136: "udplite"}
_PROTOCOLS |= {255: "raw", 262: "tcp"}  # MPTCP counts as TCP
_TYPES = {1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"}  # SOCK_* by number

_REASONS = {
    abi.REASON_NO_BACKEND: "no backend of the service is alive",
    abi.REASON_NO_SOURCE: "the host does not have the rule's source address, or the socket is bound to another one",
    abi.REASON_NO_DEVICE: "the rule's device does not exist, or the socket is of another network namespace",
    abi.REASON_NO_MEMORY: "there is no room to remember what was asked for",
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A flow, with where its names will be found whatever is loaded or removed meanwhile."""

    flow: RawFlow
    path: str  # of the cgroup that decided
    index: RuleIndex | None  # of its generation

    def with_later(self, later: Sighting) -> Sighting:
        """Both in one; `later` is of the same crowd."""
        return Sighting(self.flow.with_later(later.flow), later.path or self.path, later.index)


class Auditor:
    """Gives records their names. Remembers the rules of the last generations and the paths of cgroups."""

    def __init__(self, paths: CgroupPaths) -> None:
        self._paths = paths
        self._indexes: OrderedDict[int, RuleIndex] = OrderedDict()
        self.undecodable = 0
        self.doubts = 0  # records that say that a label or a table is not as it should be

    def learn(self, index: RuleIndex) -> None:
        """Know the rules of a generation."""
        self._indexes[index.generation] = index
        while len(self._indexes) > _GENERATIONS:
            self._indexes.popitem(last=False)

    def records(self, batch: Iterable[bytes]) -> list[Record]:
        """The events of a batch."""
        return self.named(self.sightings(batch))

    def sightings(self, batch: Iterable[bytes]) -> list[Sighting | Message]:
        """What a batch tells of; a new cgroup makes none, but its path is known from then on."""
        return [found for data in batch if (found := self._sighting(data)) is not None]

    def named(self, seen: Iterable[Sighting | Message]) -> list[Record]:
        """The events that these are."""
        offset_ns = boottime_offset_ns()
        return [self._flow(one, offset_ns) if isinstance(one, Sighting) else one for one in seen]

    def _sighting(self, data: bytes) -> Sighting | Message | None:
        flow = raw_flow(data)
        if flow is None:
            return self._cgroup(data)
        generation, rule_id, cgroup_id = flow.head
        self.doubts += rule_id in _DOUBTFUL
        return Sighting(flow, self._paths.path(cgroup_id), self._indexes.get(generation))

    def _cgroup(self, data: bytes) -> Message | None:
        try:
            record = decode(data)
        except ValueError:
            record = None
        if not isinstance(record, CgroupRecord):
            self.undecodable += 1
            return None
        self.doubts += bool(record.error)
        self._paths.learn(record.cgroup_id, record.parent_id, record.name)
        return self._label_failed(record) if record.error else None

    def _label_failed(self, record: CgroupRecord) -> Message:
        reason = os.strerror(record.error)
        path = self._paths.path(record.cgroup_id) or record.name
        text = f"a new cgroup could not be labelled, its calls are denied until a pass repairs it: {path}: {reason}"
        fields = {"cgroup": path, "cgroup_id": record.cgroup_id, "errno": errno_name(record.error)}
        return Message(Kind.LABEL_FAILED, time.time_ns(), text, fields)

    def _flow(self, seen: Sighting, offset_ns: int) -> FlowEvent:
        record, path, index = decode_flow(seen.flow), seen.path, seen.index
        units = units_of(path)
        last_ns = record.last_ns + offset_ns
        local, remote = _places(record)
        new = (record.new_address_text, record.new_port) if _has_new_address(record) else _NOWHERE
        unix = record.family == abi.FAMILY_UNIX
        leads_to = _leads_to(index, record.rule_id)
        return FlowEvent(
            time_ns=time.time_ns(),
            denied=record.denied,
            shadow_denied=record.shadow_denied,
            hook=_HOOKS.get(record.hook, str(record.hook)),
            protocol="unix" if unix else _PROTOCOLS.get(record.protocol, str(record.protocol)),
            family=record.family,
            local_address=local[0],
            local_port=local[1],
            remote_address=remote[0],
            remote_port=remote[1],
            errno=errno_name(record.errno),
            rule=_rule(index, record.generation, record.rule_id),
            shadow_rule=_rule(index, record.generation, record.shadow_rule_id),
            generation=record.generation,
            cgroup_id=record.cgroup_id,
            cgroup=path,
            unit=units.unit,
            user_unit=units.user_unit,
            decided_by="socket" if record.by_socket else "task",
            pid=record.pid,
            comm=record.comm,
            uid=record.uid,
            count=record.count,
            # Two calls at once may leave no first time: then both were last.
            first_ns=record.first_ns + offset_ns if record.first_ns else last_ns,
            last_ns=last_ns,
            collected=record.collected,
            redirected=record.rewritten,
            shadow_redirected=record.shadow_rewritten,
            new_address=new[0],
            new_port=new[1],
            name="" if record.collected else unix_name(record.name),
            new_name=leads_to if unix and record.rewritten else "",
            socket_type=_TYPES.get(record.type, str(record.type) if record.type else ""),
            reason=_reason(record.reason, leads_to),
        )


def _leads_to(index: RuleIndex | None, rule_id: int) -> str:
    """Where a rule sends calls, in words."""
    return index.refs[rule_id].to if index is not None and rule_id < len(index.refs) else ""


def _rule(index: RuleIndex | None, generation: int, rule_id: int) -> RuleName:
    if index is None or rule_id >= len(index.refs):
        return RuleName("", f"rule {rule_id} of generation {generation}", "", 0)
    ref = index.refs[rule_id]
    return RuleName(ref.policy, ref.rule, ref.file, ref.line)


Place = tuple[str, int]
_NOWHERE: Place = ("", 0)


def _places(record: FlowRecord) -> tuple[Place, Place]:
    """The local and the remote end, as far as the hook has them."""
    asked = _NOWHERE if record.collected else (record.address_text, record.port)
    if record.hook in _BINDS:
        return asked, _NOWHERE
    if record.collected or record.hook not in _EGRESS or record.family == abi.FAMILY_UNIX:
        return _NOWHERE, _NOWHERE
    return (record.local_address_text, record.local_port), asked


def _has_new_address(record: FlowRecord) -> bool:
    return record.rewritten and not record.collected and record.family != abi.FAMILY_UNIX


def _reason(number: int, leads_to: str) -> str:
    """In words, "" for none. `leads_to`: of the rule, which may name a service."""
    text = _REASONS.get(number, f"reason {number}") if number else ""
    first = leads_to.split(", ", maxsplit=1)[0]
    return text.replace("the service", first.replace(":", " ", 1)) if first.startswith("service:") else text
