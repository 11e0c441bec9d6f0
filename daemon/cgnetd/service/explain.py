# SPDX-License-Identifier: Apache-2.0
"""What a call would get from the generation in force, and every policy asked on the way, for `cgnetctl explain`.

Judged by the same tables and the same steps as in the kernel. Must not know how the question came.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from cgnetd.datapath import abi
from cgnetd.datapath.classify import call_of
from cgnetd.datapath.interpret import ExplainedStep, ImageReader, Verdict
from cgnetd.datapath.label import Label
from cgnetd.datapath.record import address_text
from cgnetd.datapath.refs import RuleRef
from cgnetd.datapath.rules import RuleIndex
from cgnetd.policy.types import Action, Flow
from cgnetd.service.consequences import Consequences, Now
from cgnetd.service.replay import verdict_word
from cgnetd.service.words import errno_name


def explain(reader: ImageReader, index: RuleIndex, label: Label, flow: Flow, now: Now) -> dict[str, Any]:
    """Verdict, shadow verdict, what decided, the policies asked for a task in a cgroup with this label, and what else
    becomes of the call."""
    effects = Consequences(reader, index, now)
    verdict = effects.judge(label, flow)
    steps = reader.explain(label, flow) if not label.overflow else ()
    step = effects.rewriting_step(steps, flow)
    sets = effects.settings(verdict, flow)
    return {
        "generation": index.generation,
        "source": f"generation {index.generation} in force",
        **_enforced(index, verdict, flow, _late_denial(verdict, sets, now)),
        **_shadow(index, verdict, flow),
        "sets": sets,
        "service": effects.service(label, step, flow),
        "rewriting": _rewriting(effects, index, label, step, flow),
        "tcp": effects.tcp(label, flow),
        "steps": [*(_asked(index, step) for step in steps), *_not_asked(index, label.policies[len(steps) :])],
    }


def _enforced(index: RuleIndex, verdict: Verdict, flow: Flow, late: tuple[int, str]) -> dict[str, Any]:
    number, reason = late
    denied = verdict.denied or bool(number)
    ref = index.refs[verdict.rule_id]
    if verdict.reason == abi.REASON_NO_BACKEND:
        reason = f"no backend of {ref.to.split(', ')[0].replace(':', ' ', 1)} is alive"
    rewritten = verdict.rewritten and not denied
    return {
        "verdict": "deny" if denied else verdict_word(verdict, flow),
        "errno": errno_name(number or verdict.errno),
        "reason": reason,
        **_rule("", index, verdict.rule_id),
        **_new_place("", flow, (verdict.new_address, verdict.new_port) if rewritten else None, ref.to),
    }


def _shadow(index: RuleIndex, verdict: Verdict, flow: Flow) -> dict[str, Any]:
    """Of a shadow redirect that is not the enforced one, the place is not worked out."""
    ref = index.refs[verdict.shadow_rule_id]
    same = verdict.shadow_rule_id == verdict.rule_id and verdict.rewritten and verdict.shadow_rewritten
    return {
        "shadow_verdict": verdict_word(_as_enforced(verdict), flow),
        "shadow_errno": errno_name(_shadow_errno(verdict, ref)),
        **_rule("shadow_", index, verdict.shadow_rule_id),
        **_new_place("shadow_", flow, (verdict.new_address, verdict.new_port) if same else None, ref.to),
    }


def _shadow_errno(verdict: Verdict, ref: RuleRef) -> int:
    """Of a rule that denies without being a deny, EPERM."""
    if not verdict.shadow_denied:
        return 0
    same = verdict.denied and verdict.shadow_rule_id == verdict.rule_id
    return verdict.errno if same else ref.errno or errno.EPERM


def _as_enforced(verdict: Verdict) -> Verdict:
    return Verdict(
        verdict.shadow_denied,
        0,
        verdict.shadow_rule_id,
        verdict.shadow_rule_id,
        verdict.shadow_denied,
        verdict.by_socket,
        rewritten=verdict.shadow_rewritten,
    )


def _late_denial(verdict: Verdict, sets: dict[str, Any], now: Now) -> tuple[int, str]:
    """The errno and the words, 0 and "" if what the rule puts on the call can be put there now."""
    source, device = sets.get("source_address"), sets.get("device")
    if not verdict.denied and source is not None and source not in now.sources:
        return errno.EADDRNOTAVAIL, f"the host does not have source address {source}"
    if not verdict.denied and device is not None and device not in now.devices:
        return errno.ENODEV, f"device {device} does not exist"
    return 0, ""


def _new_place(prefix: str, flow: Flow, place: tuple[int, int] | None, leads_to: str) -> dict[str, Any]:
    unix = flow.family == abi.FAMILY_UNIX
    address, port = place if place is not None and not unix else (0, 0)
    return {
        f"{prefix}new_address": address_text(flow.family, address) if place is not None and not unix else "",
        f"{prefix}new_port": port,
        f"{prefix}new_name": leads_to if place is not None and unix else "",
    }


def _rewriting(
    effects: Consequences, index: RuleIndex, label: Label, step: ExplainedStep | None, flow: Flow
) -> dict[str, Any] | None:
    """The rule that rewrites the call, where to, and what everything before it says about the new destination."""
    if step is None or step.rule_id is None:
        return None
    target = effects.target(step.rule_id, flow)
    found = _rule("", index, step.rule_id)
    if target is None or call_of(flow).is_unsure:
        return {**found, **_new_place("", flow, None, ""), "asked": []}
    place = _new_place("", flow, (target.address, target.port), index.refs[step.rule_id].to)
    asked = [_asked(index, earlier) for earlier in effects.asked_before(label, step, target)]
    return {**found, **place, "asked": asked}


def _rule(prefix: str, index: RuleIndex, rule_id: int) -> dict[str, Any]:
    ref = index.refs[rule_id]
    return {
        f"{prefix}policy": ref.policy,
        f"{prefix}rule": ref.rule,
        f"{prefix}file": ref.file,
        f"{prefix}line": ref.line,
    }


def _asked(index: RuleIndex, step: ExplainedStep) -> dict[str, Any]:
    if step.rule_id is None:
        return _step(index, step.policy_id, "no rule matches")
    ref = index.refs[step.rule_id]
    said = f"rule {ref.rule}: {ref.action}"
    if ref.action != step.action.value:
        said += f", which cannot be followed here: {step.action.value}"
    if ref.rule.startswith("default.") and step.action is not Action.PASS:
        said = f"no rule matches, default: {ref.action}"
    return _step(index, step.policy_id, said, ref.file, ref.line)


def _not_asked(index: RuleIndex, rest: Iterable[int]) -> list[dict[str, Any]]:
    return [_step(index, policy_id, "not asked, decided before") for policy_id in rest]


def _step(index: RuleIndex, policy_id: int, outcome: str, file: str = "", line: int = 0) -> dict[str, Any]:
    ref = index.policies[policy_id]
    return {
        "policy": ref.name,
        "tier": ref.tier,
        "priority": ref.priority,
        "audit": ref.audit,
        "outcome": outcome,
        "file": file or ref.file,
        "line": line or ref.line,
    }
