# SPDX-License-Identifier: Apache-2.0
"""Calls that were seen, judged by another generation: which of them would get another verdict.

A call is known by its event, so only what made events is judged: denied calls, and those that a rule logs. Must not
know how generations are made.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cgnetd.datapath import abi
from cgnetd.datapath.interpret import ImageReader, Verdict
from cgnetd.datapath.label import Label
from cgnetd.datapath.record import address_text
from cgnetd.datapath.rules import RuleIndex
from cgnetd.policy.types import Flow, Hook, Protocol, SocketType
from cgnetd.service.events import FlowEvent
from cgnetd.service.words import endpoint_text

LabelOf = Callable[[str], Label]  # the label that a cgroup at this path has


@dataclass(frozen=True, slots=True)
class Judge:
    """One generation. `label_of`: of the cgroup at a path, whether it exists or not."""

    reader: ImageReader
    index: RuleIndex
    label_of: LabelOf


def compare(events: Iterable[FlowEvent], before: Judge, after: Judge) -> dict[str, Any]:
    """`checked`: calls that were judged, `unjudged`: those whose place or cgroup is not known, `changed`: those that
    would get another verdict, most calls first."""
    calls: Counter[tuple[str, Flow]] = Counter()
    examples: dict[tuple[str, Flow], FlowEvent] = {}
    unjudged = 0
    for event in events:
        flow = flow_of(event)
        if flow is None or not event.cgroup:
            unjudged += event.count
            continue
        calls[event.cgroup, flow] += event.count
        examples[event.cgroup, flow] = event
    changed = []
    for (path, flow), count in calls.most_common():
        old, new = _answer(before, path, flow), _answer(after, path, flow)
        if old.said != new.said:
            changed.append({**_call(examples[path, flow]), "calls": count, **_told(old, new)})
    return {"checked": calls.total(), "unjudged": unjudged, "changed": changed}


@dataclass(frozen=True, slots=True)
class _Answer:
    verdict: str
    to: str  # where the call goes, "" if where it wanted to
    rule_id: int
    index: RuleIndex

    @property
    def said(self) -> tuple[str, str]:
        """What makes two answers the same. Which backend a service chooses is chance."""
        to = self.index.refs[self.rule_id].to
        return self.verdict, to if "service:" in to else self.to


def _answer(judge: Judge, path: str, flow: Flow) -> _Answer:
    verdict = judge.reader.judge(judge.label_of(path), None, flow)
    to = _new_place(verdict, flow, judge.index.refs[verdict.rule_id].to)
    return _Answer(verdict_word(verdict, flow), to, verdict.rule_id, judge.index)


def verdict_word(verdict: Verdict, flow: Flow) -> str:
    """ "deny", "redirect", "rewrite" or "allow"."""
    if verdict.denied or not verdict.rewritten:
        return "deny" if verdict.denied else "allow"
    return "rewrite" if flow.hook in (Hook.BIND, Hook.POST_BIND) else "redirect"


def _new_place(verdict: Verdict, flow: Flow, leads_to: str) -> str:
    if verdict.denied or not verdict.rewritten:
        return ""
    if flow.family == abi.FAMILY_UNIX:
        return leads_to
    return endpoint_text(address_text(flow.family, verdict.new_address), verdict.new_port)


def _call(event: FlowEvent) -> dict[str, Any]:
    bind = event.is_bind
    return {
        "subject": event.user_unit or event.unit or event.cgroup,
        "cgroup": event.cgroup,
        "hook": event.hook,
        "protocol": event.protocol,
        "to_address": event.local_address if bind else event.remote_address,
        "to_port": event.local_port if bind else event.remote_port,
        "name": event.name,
        "socket_type": event.socket_type,
    }


def _told(old: _Answer, new: _Answer) -> dict[str, Any]:
    ref = new.index.refs[new.rule_id]
    return {
        "from": old.verdict,
        "to": new.verdict,
        "from_place": old.to,
        "to_place": new.to,
        "policy": ref.policy,
        "rule": ref.rule,
        "file": ref.file,
        "line": ref.line,
    }


def flow_of(event: FlowEvent) -> Flow | None:
    """The flow that an event tells of; None if it does not tell enough."""
    hook = _HOOKS.get(event.hook)
    if hook is None or event.collected:
        return None
    protocol = _PROTOCOLS.get(event.protocol, Protocol.OTHER)
    if event.family == abi.FAMILY_UNIX:
        name = name_bytes(event.name)
        return Flow(hook, Protocol.OTHER, abi.FAMILY_UNIX, 0, 0, name=name) if name is not None else None
    if hook is Hook.CREATE:
        return Flow(hook, protocol, event.family, 0, 0, type=_TYPES.get(event.socket_type, SocketType.OTHER))
    if hook is Hook.SOCKET:
        return Flow(hook, protocol, event.family, 0, 0, raw=event.protocol == "raw")
    text, port = (event.local_address, event.local_port) if event.is_bind else (event.remote_address, event.remote_port)
    return Flow(hook, protocol, event.family, int(ipaddress.ip_address(text)), port) if text else None


def name_bytes(text: str) -> bytes | None:
    """The bytes of a name as events write it; None if they cannot be told for sure."""
    if not text or "\\" in text:
        return None
    return b"\0" + text[1:].encode() if text.startswith("@") else text.encode()


_HOOKS = {hook.value: hook for hook in Hook}
_PROTOCOLS = {protocol.value: protocol for protocol in Protocol}
_TYPES = {kind.value: kind for kind in SocketType}
