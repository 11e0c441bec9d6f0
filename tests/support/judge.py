# SPDX-License-Identifier: Apache-2.0
"""The two ways of judging a case's call without making it: the reference semantics, and the compiled image.

Both answer with the same `Answer`, so that a test compares like with like. Must not know sockets or the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label, child_label, root_label
from cgnetd.datapath.rules import RuleIndex
from cgnetd.policy.evaluate import judge
from cgnetd.policy.load import Source, parse
from cgnetd.policy.select import select
from cgnetd.policy.types import Action, Flow, Outcome, PolicySet, Section
from support.cases import Call, CaseFile
from support.flows import Judged, judged

_USERS = {"root": 0}


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict: errors are positive numbers, 0 is allow; rules are "policy/rule", "" for built-in ones."""

    errno: int
    rule: str
    shadow: int
    shadow_rule: str


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
    return Answer(enforced.errno, enforced.rule, shadow.shadow, shadow.shadow_rule)


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
        shadow = decision.shadow
        return Answer(
            decision.enforced.errno, rule_name(decision.enforced, step.flow), shadow.errno, rule_name(shadow, step.flow)
        )


def rule_name(outcome: Outcome, flow: Flow) -> str:
    if outcome.policy is None:
        return "default_action"
    section = Section.BIND if flow.hook.value.endswith("bind") else Section.EGRESS
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
        )
