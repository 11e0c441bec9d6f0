# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call beyond its verdict, read from an image: where it goes, by what choice, with what set.

Must not know how it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgnetd.datapath import abi
from cgnetd.datapath.classify import Call, call_of
from cgnetd.datapath.interpret import ExplainedStep, ImageReader, Verdict
from cgnetd.datapath.label import Label
from cgnetd.datapath.reader import CorruptImageError
from cgnetd.datapath.record import address_text
from cgnetd.datapath.rules import RuleIndex
from cgnetd.datapath.targets import Choose
from cgnetd.policy.types import Action, Flow, Hook, Protocol
from cgnetd.service.replay import verdict_word

_REWRITING = (Action.REDIRECT.value, Action.REWRITE.value)


@dataclass(frozen=True, slots=True)
class Now:
    """What is alive and present. `alive`: the backends that are, by (service, family); `shares`: of new calls, by
    (service, family, backend). Devices by name, source addresses as text."""

    alive: Mapping[tuple[str, int], Sequence[int]]
    shares: Mapping[tuple[str, int, int], float]
    devices: frozenset[str]
    sources: frozenset[str]


class Consequences:
    """One generation, as things are now."""

    def __init__(self, reader: ImageReader, index: RuleIndex, now: Now) -> None:
        self._reader = reader
        self._index = index
        self._now = now

    def judge(self, label: Label, flow: Flow) -> Verdict:
        """The verdict; of a service, the first backend alive that is not denied speaks."""
        first = self._reader.judge(label, None, flow, self._choice(0))
        if not first.denied or first.reason:
            return first
        most = max((len(alive) for alive in self._now.alive.values()), default=0)
        others = (self._reader.judge(label, None, flow, self._choice(number)) for number in range(1, most))
        return next((verdict for verdict in others if not verdict.denied), first)

    def target(self, rule_id: int, flow: Flow) -> Call | None:
        """The call as a rule that rewrites sends it on; None if it cannot be told."""
        try:
            found = self._reader.target(rule_id, call_of(flow), self._choice(0))
        except CorruptImageError:
            return None
        return None if found.errno else found.call

    def rewriting_step(self, steps: Iterable[ExplainedStep], flow: Flow) -> ExplainedStep | None:
        """The step whose rule rewrites the call, or would if the new destination were not denied."""
        last = next((step for step in steps if step.action is not Action.PASS and not step.audit), None)
        if last is None or last.rule_id is None or flow.hook in (Hook.SOCKET, Hook.POST_BIND):
            return None
        return last if self._index.refs[last.rule_id].action in _REWRITING else None

    def asked_before(self, label: Label, step: ExplainedStep, target: Call) -> Iterator[ExplainedStep]:
        """What judges the new destination: the policies before the rule's, then the rules before it in its own."""
        for policy_id in label.policies:
            rule, audit = self._reader.match(policy_id, target)
            own = policy_id == step.policy_id
            rule_id = abi.hi(rule) if rule is not None else None
            if rule_id is None or (own and rule_id >= (step.rule_id or 0)):
                yield ExplainedStep(policy_id, None, Action.PASS, audit)
            else:
                action = Action(self._index.refs[rule_id].action)
                yield ExplainedStep(policy_id, rule_id, action, audit)
                if action is not Action.PASS and not audit:
                    return
            if own:
                return

    def service(self, label: Label, step: ExplainedStep | None, flow: Flow) -> dict[str, Any] | None:
        """The service that chooses the destination, and each backend that it chooses among."""
        number = self._service_id(step, flow)
        if number is None:
            return None
        service = self._index.live.services[number]
        backends = dict(service.families())[flow.family].backends if flow.family in dict(service.families()) else ()
        alive = self._now.alive.get((service.name, flow.family), ())
        return {
            "name": service.name,
            "balance": "sticky" if self._sticky_ns(number) else "random",
            "backends": [
                {
                    "address": backend.address,
                    "port": backend.port or flow.port,
                    "weight": backend.weight,
                    "share": round(self._now.shares.get((service.name, flow.family, index), 0.0), 4),
                    "alive": index in alive,
                    "verdict": self._by_backend(label, flow, index),
                }
                for index, backend in enumerate(backends)
            ],
        }

    def settings(self, verdict: Verdict, flow: Flow) -> dict[str, Any]:
        """What the rule that lets a call pass puts on it: local address, options, no need of a capability."""
        flags = abi.lo(self._reader.rule(verdict.rule_id)) >> 8 & 0xFF
        if verdict.denied or not flags & abi.RULE_EFFECT:
            return {}
        at = self._reader.effect(verdict.rule_id)
        has = abi.hi(self._reader.cell(at + abi.EFFECT_FLAGS))
        found: dict[str, Any] = {}
        if (source := self._source(at, has, flow.family)) is not None:
            found["source_address"] = address_text(flow.family, source)
        if has & abi.EFFECT_PRIVILEGED and flow.hook is Hook.BIND:
            found["privileged"] = True
        options = self._reader.cell(at + abi.EFFECT_OPTIONS)
        if has & abi.EFFECT_MARK:
            found["mark"] = abi.hi(options)
        if has & abi.EFFECT_PRIORITY:
            found["priority"] = abi.lo(options)
        if has & abi.EFFECT_DEVICE:
            found["device"] = self._index.live.devices[abi.lo(self._reader.cell(at + abi.EFFECT_LINK))]
        return found

    def tcp(self, label: Label, flow: Flow) -> dict[str, Any]:
        """How the TCP connections of a task with this label are tuned, by the policy language's own keys."""
        found: dict[str, Any] = {}
        if flow.protocol is not Protocol.TCP:
            return found
        for policy_id in label.policies:
            header = self._reader.header(policy_id)
            flags = abi.hi(self._reader.cell(header + abi.POLICY_FLAGS))
            if flags & abi.POLICY_TUNES_TCP and not flags & abi.POLICY_AUDIT:
                found = {**self._tuning(header), **found}
        return found

    def _tuning(self, header: int) -> dict[str, Any]:
        numbers = self._reader.cell(header + abi.POLICY_TCP)
        name = b"".join(
            self._reader.cell(header + abi.POLICY_CONGESTION + cell).to_bytes(8, abi.BYTE_ORDER) for cell in range(2)
        )
        said = {
            "congestion": name.rstrip(b"\0").decode("ascii", "backslashreplace"),
            "initialRtoMs": abi.hi(numbers),
            "initialWindow": abi.lo(numbers),
        }
        return {word: value for word, value in said.items() if value}

    def _source(self, at: int, has: int, family: int) -> int | None:
        if family == abi.FAMILY_V4 and has & abi.EFFECT_SOURCE4:
            return abi.hi(self._reader.cell(at + abi.EFFECT_SOURCE_V4))
        if family == abi.FAMILY_V6 and has & abi.EFFECT_SOURCE6:
            first = at + abi.EFFECT_SOURCE_V6
            return self._reader.cell(first) << 64 | self._reader.cell(first + 1)
        return None

    def _service_id(self, step: ExplainedStep | None, flow: Flow) -> int | None:
        if step is None or step.rule_id is None or flow.family == abi.FAMILY_UNIX:
            return None
        head = self._reader.cell(self._reader.effect(step.rule_id) + abi.EFFECT_FLAGS)
        return abi.lo(head) if abi.hi(head) & abi.EFFECT_SERVICE else None

    def _sticky_ns(self, service_id: int) -> int:
        record = abi.hi(self._reader.cell(abi.IMAGE_SERVICES)) + service_id * abi.SERVICE_CELLS
        return self._reader.cell(record + abi.SERVICE_STICKY_NS)

    def _choice(self, number: int) -> Choose:
        """Chooses the so-many-th backend alive, the last one if there are less."""

        def choose(service_id: int, family: int) -> int | None:
            alive = self._now.alive.get((self._index.live.services[service_id].name, family), ())
            return alive[min(number, len(alive) - 1)] if alive else None

        return choose

    def _by_backend(self, label: Label, flow: Flow, index: int) -> str:
        return verdict_word(self._reader.judge(label, None, flow, lambda _service, _family: index), flow)
