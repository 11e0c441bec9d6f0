# SPDX-License-Identifier: Apache-2.0
"""Verdicts from a compiled image, step by step as the programs in the kernel reach them (bpf/decide.bpf.h).

It stands between the reference semantics and the kernel: tests compare all three. Must not know how an image is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from cgnetd.datapath import abi
from cgnetd.datapath.classify import Call, action_of, call_of, denial, permission
from cgnetd.datapath.label import Label
from cgnetd.datapath.reader import CorruptImageError
from cgnetd.datapath.rules import EPERM
from cgnetd.datapath.targets import Choose, Target, TargetReader, first_backend
from cgnetd.policy.types import Action, Flow

ACTIONS = {abi.ACTION_ALLOW: Action.ALLOW, abi.ACTION_DENY: Action.DENY, abi.ACTION_PASS: Action.PASS}
REWRITES = {abi.DIR_BIND: Action.REWRITE}  # elsewhere a redirect
MAPPED = 0xFFFF << 32  # the IPv6 form of an IPv4 address


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a call meets. `errno` is 0 unless denied; rule ids are the image's; `by_socket`: not the task's cgroup.

    `rewritten`: it goes on to `new_address` and `new_port` (0 for UNIX sockets, whose new name is the rule's), for a
    bind of an IPv6 socket always an IPv6 address. `reason`: abi.REASON_*, why what the rules let pass is denied.
    """

    denied: bool
    errno: int
    rule_id: int
    shadow_rule_id: int  # what would decide with audit policies taken as enforcing
    shadow_denied: bool
    by_socket: bool
    rewritten: bool = False
    new_address: int = 0
    new_port: int = 0
    reason: int = abi.REASON_NONE
    shadow_rewritten: bool = False


class ExplainedStep(NamedTuple):
    """What one policy on the way said: the rule that matched (None: none did), PASS if the walk went on."""

    policy_id: int
    rule_id: int | None
    action: Action
    audit: bool


class _Answer(NamedTuple):
    """The cell of the rule that decides, and where the call goes if that rewrites it."""

    rule: int
    target: Target | None = None
    reason: int = abi.REASON_NONE

    @property
    def denies(self) -> bool:
        return action_of(self.rule) == abi.ACTION_DENY


class _Pair(NamedTuple):
    """An identity's verdict and shadow verdict."""

    enforced: _Answer
    shadow: _Answer


class ImageReader(TargetReader):
    """The compiled image as a judge."""

    def judge(self, task: Label | None, socket: Label | None, flow: Flow, choose: Choose = first_backend) -> Verdict:
        """The verdict on a call by a task in one cgroup on a socket of another one.

        None, and a label without policies, do not judge. Pass `socket` only if its cgroup is not the task's: it judges
        the call as it was made, and rewrites nothing. `choose` is asked once for a service and family.
        """
        call, choose_once = call_of(flow), cache(choose)
        by_task = task is not None and _governed(task)
        judges = [self._judge(task, call, choose_once)] if task is not None and by_task else []
        if socket is not None and _governed(socket):
            judges.append(self._judge(socket, call, None))
        if not judges:
            return Verdict(False, 0, abi.RULE_DEFAULT, abi.RULE_DEFAULT, False, False)
        first, last = judges[0], judges[-1]
        by_socket = not by_task or (not first.enforced.denies and last.enforced.denies)
        return _verdict(_Pair(*map(_stricter, first, last)), by_socket)

    def explain(self, label: Label, flow: Flow, choose: Choose = first_backend) -> tuple[ExplainedStep, ...]:
        """The policies walked for one identity, up to the one that decides. CorruptImageError if one cannot be read."""
        call = call_of(flow)
        if call.both_families:
            as_v4 = replace(call, family=abi.FAMILY_V4)
            v6, v4 = (self._walk(label, each, choose).enforced for each in (call, as_v4))
            call = as_v4 if _prefers_v4(v6, v4) else call
        return self._steps(label, call)

    def _steps(self, label: Label, call: Call) -> tuple[ExplainedStep, ...]:
        steps = []
        for policy_id in label.policies:
            rule, audit = self.match(policy_id, call)
            rule_id = None if rule is None else abi.hi(rule)
            action = Action.PASS if rule is None else _action(rule, call)
            steps.append(ExplainedStep(policy_id, rule_id, action, audit))
            if action is not Action.PASS and not audit:
                break
        return tuple(steps)

    def _judge(self, label: Label, call: Call, choose: Choose | None) -> _Pair:
        """One identity's verdict; without `choose` it rewrites nothing."""
        if label.overflow:
            answer = _Answer(_built_in_deny(abi.RULE_OVERFLOW))
            return _Pair(answer, answer)
        pair = self._walk(label, call, choose)
        if not call.both_families:
            return pair
        as_v4 = self._walk(label, replace(call, family=abi.FAMILY_V4), choose)
        return _Pair(*map(_of_both_families, pair, as_v4))

    def _walk(self, label: Label, call: Call, choose: Choose | None) -> _Pair:
        """The first decision of any policy is the shadow's, the first of an enforcing one the verdict."""
        shadow = None
        for place, policy_id in enumerate(label.policies):
            rule, audit = self._ask(policy_id, call)
            if rule is None:
                continue
            shadow = shadow or self._follow(rule, label.policies[: place + 1], call, choose, shadow=True)
            if not audit:
                return _Pair(self._follow(rule, label.policies[: place + 1], call, choose, shadow=False), shadow)
        nothing_decided = _Answer(self._default(call))
        return _Pair(nothing_decided, shadow or nothing_decided)

    def _ask(self, policy_id: int, call: Call) -> tuple[int | None, bool]:
        """The cell of the rule that decides, None if the policy passes; and whether it only audits."""
        try:
            rule, audit = self.match(policy_id, call)
        except CorruptImageError:
            return _built_in_deny(abi.RULE_CORRUPT), False
        return (None if rule is None or action_of(rule) == abi.ACTION_PASS else rule), audit

    def _follow(self, rule: int, chain: tuple[int, ...], call: Call, choose: Choose | None, *, shadow: bool) -> _Answer:
        """What becomes of a call that the rule decides; `chain` ends with the rule's policy."""
        if action_of(rule) != abi.ACTION_REWRITE:
            return _Answer(rule)
        if choose is None:
            return _Answer(permission(rule))
        try:
            target = self.target(abi.hi(rule), call, choose)
        except CorruptImageError:
            return _Answer(_built_in_deny(abi.RULE_CORRUPT))
        if target.errno:
            return _Answer(denial(rule, target.errno), reason=abi.REASON_NO_BACKEND)
        for place in _places(target):
            before = self._denial_before(rule, chain, place, shadow=shadow)
            if before is not None:
                return _Answer(before)
        return _Answer(rule, target)

    def _denial_before(self, rule: int, chain: tuple[int, ...], target: Call, *, shadow: bool) -> int | None:
        """What denies the call at its target, of all that comes before the rule: whole policies, then rules of its
        own."""
        for policy_id in chain:
            earlier, audit = self._ask(policy_id, target)
            own = policy_id == chain[-1]
            if earlier is None or (own and abi.hi(earlier) >= abi.hi(rule)) or (audit and not own and not shadow):
                continue
            return earlier if action_of(earlier) == abi.ACTION_DENY else None
        return None

    def _default(self, call: Call) -> int:
        """The daemon's default_action, for what no policy decided; it does not speak of new sockets and UNIX names."""
        if call.direction >= abi.DIR_TABLES:
            return abi.cell(abi.RULE_DEFAULT, abi.ACTION_ALLOW)
        try:
            rule = self.rule(abi.RULE_DEFAULT)
        except CorruptImageError:
            return _built_in_deny(abi.RULE_CORRUPT)
        return rule if action_of(rule) in (abi.ACTION_ALLOW, abi.ACTION_DENY) else _built_in_deny(abi.RULE_CORRUPT)


def _governed(label: Label) -> bool:
    return bool(label.policies) or label.overflow


def _built_in_deny(rule_id: int) -> int:
    """The cell of a built-in denying rule, whatever the image holds."""
    return abi.cell(rule_id, EPERM << 16 | abi.RULE_LOG << 8 | abi.ACTION_DENY)


def _action(rule: int, call: Call) -> Action:
    return ACTIONS.get(action_of(rule)) or REWRITES.get(call.direction, Action.REDIRECT)


def _errno(rule: int) -> int:
    error = abi.lo(rule) >> 16
    return error if 0 < error < 256 else EPERM


def _stricter(first: _Answer, second: _Answer) -> _Answer:
    """The first that denies, otherwise the first."""
    return second if second.denies and not first.denies else first


def _places(target: Target) -> tuple[Call, ...]:
    """What a call at its target is judged as: a bind that keeps [::] takes the new port on 0.0.0.0 too."""
    call = target.call
    if not call.both_families or call.address:
        return (call,)
    return (call, replace(call, family=abi.FAMILY_V4 + abi.FAMILY_V6 - call.family))


def _prefers_v4(v6: _Answer, v4: _Answer) -> bool:
    """Whether a bind to [::] is decided by the verdict on 0.0.0.0: the first that denies, or gives another address, or
    rewrites."""
    if v6.denies or v4.denies:
        return not v6.denies
    return v4.target is not None and not (v6.target is not None and v6.target.moved)


def _of_both_families(v6: _Answer, v4: _Answer) -> _Answer:
    if not _prefers_v4(v6, v4):
        return v6
    if v4.target is None or not v4.target.moved:
        return v4
    mapped = replace(v4.target.call, address=MAPPED | v4.target.call.address)
    return v4._replace(target=v4.target._replace(call=mapped))


def _verdict(pair: _Pair, by_socket: bool) -> Verdict:
    enforced, shadow = pair
    call = enforced.target.call if enforced.target is not None else None
    told = call if call is not None and call.direction < abi.DIR_TABLES else None
    return Verdict(
        denied=enforced.denies,
        errno=_errno(enforced.rule) if enforced.denies else 0,
        rule_id=abi.hi(enforced.rule),
        shadow_rule_id=abi.hi(shadow.rule),
        shadow_denied=shadow.denies,
        by_socket=by_socket,
        rewritten=call is not None,
        new_address=told.address if told is not None else 0,
        new_port=told.port if told is not None else 0,
        reason=enforced.reason,
        shadow_rewritten=shadow.target is not None,
    )
