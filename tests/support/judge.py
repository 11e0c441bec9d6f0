# SPDX-License-Identifier: Apache-2.0
"""The two ways of judging a case's call without making it: the reference semantics, and the compiled image.

Both answer with the same `Answer`, so that a test compares like with like. Must not know sockets or the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import ImageReader, Verdict
from cgnetd.datapath.label import Label, child_label, root_label
from cgnetd.datapath.rules import RuleIndex
from cgnetd.policy.evaluate import judge
from cgnetd.policy.load import Source, parse
from cgnetd.policy.select import select
from cgnetd.policy.types import Action, Flow, Hook, Outcome, PolicySet, Rule, Section
from support.cases import Call, CaseFile, Endpoint
from support.flows import UNIX, Judged, address_of, judged

_USERS = {"root": 0}
_SECTIONS = {Hook.BIND: Section.BIND, Hook.POST_BIND: Section.BIND, Hook.CREATE: Section.SOCKET}


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict: errors are positive numbers, 0 is allow; rules are "policy/rule", "" for built-in ones.

    `place`: where the call goes, see `place_text`. `sets`: what else its rule does to it, and to its socket when that
    was made: "source", "mark", "priority", "device" as a case writes them.
    """

    errno: int
    rule: str
    shadow: int
    shadow_rule: str
    place: str = ""
    sets: tuple[tuple[str, str], ...] = ()


def place_text(family: int, address: int, port: int, name: bytes = b"") -> str:
    """An address as a case writes it: 1.2.3.4:5, [::1]:5 or @name; an IPv4-mapped one is IPv4."""
    if family == UNIX:
        return name.replace(b"\0", b"@", 1).decode()
    if family == 4:
        return f"{IPv4Address(address)}:{port}"
    found = IPv6Address(address)
    return f"{found.ipv4_mapped}:{port}" if found.ipv4_mapped else f"[{found}]:{port}"


def place_of(place: Endpoint) -> str:
    """The same text, of an address of a case."""
    return place.host if place.is_name else place_text(*address_of(place.host), place.port)


def policy_set_of(case_file: CaseFile) -> PolicySet:
    """Parse the policies of a case file. Raises ValueError with every problem."""

    def read_set(path: str) -> bytes:
        if path not in case_file.sets:
            raise FileNotFoundError(path)
        return case_file.sets[path]

    source = Source(f"{case_file.name}.yaml", case_file.policies)
    result = parse([source], read_set=read_set, find_user=_USERS.__getitem__)
    if result.policy_set is None:
        raise ValueError("\n".join(str(problem) for problem in result.problems))
    return result.policy_set


def components(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def combine(answers: list[Answer]) -> Answer:
    """The answer to a call of several steps: the first step that is denied ends it; shadow verdicts likewise."""
    if not answers:
        return Answer(0, "", 0, "")
    enforced = next((a for a in answers if a.errno), answers[-1])
    shadow = next((a for a in answers if a.shadow), answers[-1])
    sets = tuple(item for answer in answers for item in answer.sets)
    return Answer(enforced.errno, enforced.rule, shadow.shadow, shadow.shadow_rule, enforced.place, sets)


class Reference:
    """Way one: `select` and `judge`."""

    def __init__(self, case_file: CaseFile) -> None:
        self._policies = policy_set_of(case_file)
        self._default = Action(case_file.default_action)

    def answer(self, call: Call) -> Answer:
        return combine([self._one(step) for step in judged(call)])

    def _one(self, step: Judged) -> Answer:
        task = select(self._policies, components(step.task))
        socket = None if step.socket is None else select(self._policies, components(step.socket))
        decision = judge(task, socket, step.flow, self._default)
        shadow, enforced = decision.shadow, decision.enforced
        return Answer(
            enforced.errno,
            rule_name(enforced, step.flow),
            shadow.errno,
            rule_name(shadow, step.flow),
            _place(enforced, step.flow),
            tuple(_sets(enforced.rule, step.flow)) if enforced.rule else (),
        )


def _place(outcome: Outcome, flow: Flow) -> str:
    target, redirect = outcome.target, outcome.rule.redirect if outcome.rule else None
    if target:
        return place_text(target.family, target.address, target.port)
    name = redirect.name if redirect and redirect.name else flow.name
    return place_text(flow.family, flow.address, flow.port, name)


def _sets(rule: Rule, flow: Flow) -> Iterator[tuple[str, str]]:
    address = rule.source.of(flow.family) if rule.source else None
    if address is not None:
        yield "source", str(IPv4Address(address) if flow.family == 4 else IPv6Address(address))
    if rule.options:
        for name in ("mark", "priority", "device"):
            if (value := getattr(rule.options, name)) is not None:
                yield name, str(value)


def rule_name(outcome: Outcome, flow: Flow) -> str:
    if outcome.policy is None:
        return "default_action"
    section = _SECTIONS.get(flow.hook, Section.EGRESS)
    return f"{outcome.policy.name}/{outcome.rule.name if outcome.rule else f'default.{section.value}'}"


def ref_name(index: RuleIndex, rule_id: int) -> str:
    """The same name from a rule index."""
    ref = index.refs[rule_id]
    return f"{ref.policy}/{ref.rule}" if ref.policy else ref.rule


class Compiled:
    """Way two: the image, with labels derived by its automaton."""

    def __init__(self, case_file: CaseFile) -> None:
        self.image = compile_image(
            policy_set_of(case_file), default_action=Action(case_file.default_action), generation=1, cache=None
        )
        self._reader = ImageReader(self.image.cells)

    def answer(self, call: Call) -> Answer:
        return combine([self._one(step) for step in judged(call)])

    def _label(self, path: str) -> Label:
        label = root_label(self._reader)
        for name in components(path):
            label = child_label(self._reader, label, name.encode())
        return label

    def _one(self, step: Judged) -> Answer:
        socket = None if step.socket is None else self._label(step.socket)
        verdict = self._reader.judge(self._label(step.task), socket, step.flow)
        refs = self.image.index.refs
        return Answer(
            verdict.errno,
            ref_name(self.image.index, verdict.rule_id),
            refs[verdict.shadow_rule_id].errno if verdict.shadow_denied else 0,
            ref_name(self.image.index, verdict.shadow_rule_id),
            self._place(verdict, step.flow),
            tuple(effects_of(self.image, self._reader, verdict.rule_id, step.flow)),
        )

    def _place(self, verdict: Verdict, flow: Flow) -> str:
        if not verdict.rewritten:
            return place_text(flow.family, flow.address, flow.port, flow.name)
        if flow.family == UNIX:
            return self.image.index.refs[verdict.rule_id].to
        return place_text(flow.family, verdict.new_address, verdict.new_port)


def effects_of(image: Image, reader: ImageReader, rule_id: int, flow: Flow) -> Iterator[tuple[str, str]]:
    """What a rule sets, as the image holds it."""
    if not image.index.refs[rule_id].to:
        return
    at = reader.effect(rule_id)
    flags, options = abi.hi(reader.cell(at + abi.EFFECT_FLAGS)), reader.cell(at + abi.EFFECT_OPTIONS)
    if flow.family == 4 and flags & abi.EFFECT_SOURCE4:
        yield "source", str(IPv4Address(abi.hi(reader.cell(at + abi.EFFECT_SOURCE_V4))))
    if flow.family == 6 and flags & abi.EFFECT_SOURCE6:
        high, low = (reader.cell(at + abi.EFFECT_SOURCE_V6 + half) for half in range(2))
        yield "source", str(IPv6Address(high << 64 | low))
    if flags & abi.EFFECT_MARK:
        yield "mark", str(abi.hi(options))
    if flags & abi.EFFECT_PRIORITY:
        yield "priority", str(abi.lo(options))
    if flags & abi.EFFECT_DEVICE:
        yield "device", image.live.devices[abi.lo(reader.cell(at + abi.EFFECT_LINK))]
