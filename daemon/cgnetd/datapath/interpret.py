# SPDX-License-Identifier: Apache-2.0
"""Verdicts from a compiled image, step by step as the programs in the kernel reach them (bpf/verdict.bpf.h).

It stands between the reference semantics and the kernel: tests compare all three. Must not know how an image is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.label import Label
from cgnetd.datapath.reader import CellReader, CorruptImageError
from cgnetd.datapath.rows import PROTOCOLS
from cgnetd.datapath.rules import EPERM
from cgnetd.policy.types import Action, Flow, Hook

BIND_HOOKS = frozenset({Hook.BIND, Hook.POST_BIND})
ACTIONS = {abi.ACTION_ALLOW: Action.ALLOW, abi.ACTION_DENY: Action.DENY, abi.ACTION_PASS: Action.PASS}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a call meets. `errno` is 0 unless denied; rule ids are the image's; `by_socket`: not the task's cgroup."""

    denied: bool
    errno: int
    rule_id: int
    shadow_rule_id: int  # what would decide with audit policies taken as enforcing
    shadow_denied: bool
    by_socket: bool


class ExplainedStep(NamedTuple):
    """What one policy on the way said: the rule that matched (None: none did), PASS if the walk went on."""

    policy_id: int
    rule_id: int | None
    action: Action
    audit: bool


class _Pair(NamedTuple):
    """Rule cells of an identity's verdict and shadow verdict."""

    rule: int
    shadow: int


@dataclass(frozen=True, slots=True)
class _Call:
    """A flow in the image's terms."""

    hook: Hook
    direction: int
    context: int  # of a SOCKET flow: the opaque class
    family: int
    address: int
    port: int
    both_families: bool


class ImageReader(CellReader):
    """The compiled image as a judge."""

    def judge(self, task: Label | None, socket: Label | None, flow: Flow) -> Verdict:
        """The verdict on a call by a task in one cgroup on a socket of another one.

        None, and a label without policies, do not judge. Pass `socket` only if its cgroup is not the task's.
        """
        call = _call(flow)
        judges = [self._judge(label, call) for label in (task, socket) if label is not None and _governed(label)]
        if not judges:
            return Verdict(False, 0, abi.RULE_DEFAULT, abi.RULE_DEFAULT, False, False)
        first = judges[0]
        last = judges[-1]
        by_socket = task is None or not _governed(task) or (not _denies(first.rule) and _denies(last.rule))
        return _verdict(_stricter(first, last), by_socket)

    def explain(self, label: Label, flow: Flow) -> tuple[ExplainedStep, ...]:
        """The policies walked for one identity, up to the one that decides. CorruptImageError if one cannot be read."""
        call = _call(flow)
        if call.both_families and not _denies(self._walk(label, call).rule):
            as_v4 = replace(call, family=4)
            call = as_v4 if _denies(self._walk(label, as_v4).rule) else call
        return self._steps(label, call)

    def _steps(self, label: Label, call: _Call) -> tuple[ExplainedStep, ...]:
        steps = []
        for policy_id in label.policies:
            flags = self._flags(policy_id)
            rule_id = self._matching_rule(policy_id, call)
            action = Action.PASS if rule_id is None else ACTIONS[self.rule(rule_id) & 0xFF]
            audit = bool(flags & abi.POLICY_AUDIT)
            steps.append(ExplainedStep(policy_id, rule_id, action, audit))
            if action is not Action.PASS and not audit:
                break
        return tuple(steps)

    def _judge(self, label: Label, call: _Call) -> _Pair:
        """One identity's verdict."""
        if label.overflow:
            return _Pair(_deny(abi.RULE_OVERFLOW), _deny(abi.RULE_OVERFLOW))
        pair = self._walk(label, call)
        return _stricter(pair, self._walk(label, replace(call, family=4))) if call.both_families else pair

    def _walk(self, label: Label, call: _Call) -> _Pair:
        """The first decision of any policy is the shadow's, the first of an enforcing one the verdict."""
        shadow = None
        for policy_id in label.policies:
            try:
                rule, audit = self._ask_policy(policy_id, call)
            except CorruptImageError:
                rule, audit = _deny(abi.RULE_CORRUPT), False
            if rule is None:
                continue
            shadow = rule if shadow is None else shadow
            if not audit:
                return _Pair(rule, shadow)
        rule = self._default()
        return _Pair(rule, rule if shadow is None else shadow)

    def _ask_policy(self, policy_id: int, call: _Call) -> tuple[int | None, bool]:
        """The cell of the rule that decides, None if the policy passes; and whether it only audits."""
        rule_id = self._matching_rule(policy_id, call)
        if rule_id is None:
            return None, False
        rule = self.rule(rule_id)
        audit = bool(self._flags(policy_id) & abi.POLICY_AUDIT)
        return (None if rule & 0xFF == abi.ACTION_PASS else rule), audit

    def _matching_rule(self, policy_id: int, call: _Call) -> int | None:
        """Id of the rule or default that matches, None if the policy has nothing to say."""
        header = self.header(policy_id)
        wanted = abi.POLICY_EGRESS if call.direction == abi.DIR_EGRESS else abi.POLICY_BIND
        if not self._flags(policy_id) & wanted:
            return None
        base = self.cell(header + abi.POLICY_BASE)
        if call.hook is Hook.SOCKET:
            reference = abi.lo(self.cell(header + abi.POLICY_OPAQUE + call.context))
        else:
            reference = self._classify(header, abi.hi(base), call)
        if reference == abi.REF_CORRUPT:
            raise CorruptImageError("read image: a rule reference of 0")
        return None if reference == abi.REF_NONE else abi.lo(base) + reference - abi.REF_RULE

    def _classify(self, header: int, blob: int, call: _Call) -> int:
        """Address -> row -> port list -> rule reference."""
        contexts = abi.EGRESS_CONTEXTS if call.direction == abi.DIR_EGRESS else abi.BIND_CONTEXTS
        if call.family == 4:
            row = self.row4(blob, self.cell(header + abi.POLICY_V4 + call.direction), call.address)
        else:
            row = self.row6(blob, self.cell(header + abi.POLICY_V6 + call.direction), call.address)
        rows = self.cell(header + abi.POLICY_ROWS + call.direction)
        if row >= abi.lo(rows):
            raise CorruptImageError(f"read image: there is no row {row}")
        port_list = self.cell(blob + abi.hi(rows) + row * contexts + call.context)
        return self._reference(blob, port_list, call)

    def _reference(self, blob: int, port_list: int, call: _Call) -> int:
        """By the port; of a port that the kernel picked, the earlier one of `ephemeral` and the port."""
        first, count = blob + abi.hi(port_list), abi.lo(port_list)
        reference = self.bisect(first, count, call.port)
        if call.hook is not Hook.POST_BIND or reference == abi.REF_CORRUPT:
            return reference
        ephemeral = self.bisect(first, count, 0)
        if ephemeral == abi.REF_CORRUPT:
            return ephemeral
        if reference == abi.REF_NONE or (ephemeral != abi.REF_NONE and ephemeral < reference):
            return ephemeral
        return reference

    def _flags(self, policy_id: int) -> int:
        return abi.hi(self.cell(self.header(policy_id) + abi.POLICY_FLAGS))

    def _default(self) -> int:
        """The daemon's default_action, for what no policy decided."""
        try:
            rule = self.rule(abi.RULE_DEFAULT)
        except CorruptImageError:
            return _deny(abi.RULE_CORRUPT)
        return _deny(abi.RULE_CORRUPT) if rule & 0xFF == abi.ACTION_PASS else rule


def _call(flow: Flow) -> _Call:
    protocol = PROTOCOLS.index(flow.protocol)
    if flow.hook is Hook.SOCKET and flow.raw:
        protocol = abi.OPAQUE_RAW
    bind = flow.hook in BIND_HOOKS
    return _Call(
        hook=flow.hook,
        direction=abi.DIR_BIND if bind else abi.DIR_EGRESS,
        context=protocol + (abi.PROTO_COUNT if flow.hook is Hook.SENDMSG else 0),
        family=flow.family,
        address=flow.address,
        port=flow.port,
        both_families=bind and flow.family == 6 and flow.address == 0 and not flow.v6_only,
    )


def _governed(label: Label) -> bool:
    return bool(label.policies) or label.overflow


def _deny(rule_id: int) -> int:
    """The cell of a built-in denying rule, whatever the image holds."""
    return abi.cell(rule_id, EPERM << 16 | abi.RULE_LOG << 8 | abi.ACTION_DENY)


def _denies(rule: int) -> bool:
    return rule & 0xFF == abi.ACTION_DENY


def _errno(rule: int) -> int:
    error = abi.lo(rule) >> 16
    return error if 0 < error < 256 else EPERM


def _stricter(first: _Pair, second: _Pair) -> _Pair:
    """Of each verdict the first that denies, otherwise the first."""
    return _Pair(*(b if _denies(b) and not _denies(a) else a for a, b in zip(first, second, strict=True)))


def _verdict(pair: _Pair, by_socket: bool) -> Verdict:
    denied = _denies(pair.rule)
    return Verdict(
        denied=denied,
        errno=_errno(pair.rule) if denied else 0,
        rule_id=abi.hi(pair.rule),
        shadow_rule_id=abi.hi(pair.shadow),
        shadow_denied=_denies(pair.shadow),
        by_socket=by_socket,
    )
