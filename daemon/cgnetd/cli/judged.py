# SPDX-License-Identifier: Apache-2.0
"""A call judged by the reference semantics from policy files, as `explain` shows it.

Must not know of the daemon, the kernel or the cgroup tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cgnetd.cli.crowded import RULE, can_be_crowded, is_crowded
from cgnetd.cli.offline import load
from cgnetd.cli.rewritten import Judged, before, judge_each, new_place, place_of, service_answer, settings, tcp_answer
from cgnetd.datapath.compile import compile_image
from cgnetd.errors import PolicyError
from cgnetd.policy.evaluate import evaluate
from cgnetd.policy.select import select
from cgnetd.policy.types import Action, Decision, Flow, Hook, Outcome, Policy, Step
from cgnetd.service.words import errno_name

_SOURCE = "from the files"
_DENIED = {"verdict": "deny", "errno": "EPERM", "policy": "", "rule": RULE, "file": "", "line": 0}
_NOWHERE: dict[str, Any] = {"new_address": "", "new_port": 0, "new_name": ""}
_UNCHANGED: dict[str, Any] = {"sets": {}, "service": None, "rewriting": None, "tcp": {}}


def judge_offline(places: Sequence[str], path: tuple[str, ...], flow: Flow, default_action: str) -> dict[str, Any]:
    """Verdict, shadow verdict, deciding rules, every governing policy, and what else becomes of the call, for a task
    at `path`.

    Raises PolicyError when the files are no valid policy set, UsageError when there are none.
    """
    loaded = load(places)
    if loaded.policy_set is None:
        raise PolicyError(loaded.problems)
    default = Action(default_action)
    if can_be_crowded(loaded.policy_set):
        image = compile_image(loaded.policy_set, default_action=default, generation=1)
        if is_crowded(image, path):
            denied = _DENIED | _NOWHERE
            shadow = {f"shadow_{key}": value for key, value in denied.items()}
            return denied | shadow | _UNCHANGED | {"source": _SOURCE, "steps": []}
    chain = select(loaded.policy_set, path)
    judged = judge_each(chain, flow, default)
    decision = judged.decision
    return {
        **_outcome("", decision.enforced, flow),
        **_outcome("shadow_", decision.shadow, flow),
        "sets": settings(decision.enforced, flow),
        "service": service_answer(judged, flow),
        "rewriting": _rewriting(chain, judged),
        "tcp": tcp_answer(chain, flow),
        "source": _SOURCE,
        "steps": _steps(chain, decision),
    }


def _outcome(prefix: str, outcome: Outcome, flow: Flow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "verdict": outcome.action.value,
        "errno": errno_name(outcome.errno) if outcome.action is Action.DENY else "",
        **_decider(outcome, flow),
        **new_place(outcome, flow),
    }
    return {prefix + key: value for key, value in found.items()}


def _decider(outcome: Outcome, flow: Flow) -> dict[str, Any]:
    policy, rule = outcome.policy, outcome.rule
    if policy is None:
        return {"policy": "", "rule": "default_action", "file": "", "line": 0}
    where = rule.where if rule else policy.default_where or policy.where
    name = rule.name if rule else default_name(flow)
    return {"policy": policy.name, "rule": name, "file": where.file, "line": where.line}


def _rewriting(chain: Sequence[Policy], judged: Judged) -> dict[str, Any] | None:
    """The rule that rewrites the call, where to, and what everything before it says about the new destination."""
    if judged.policy is None or judged.rule is None:
        return None
    earlier, aimed = before(chain, judged), judged.aimed
    return {
        "policy": judged.policy.name,
        "rule": judged.rule.name,
        "file": judged.rule.where.file,
        "line": judged.rule.where.line,
        **(place_of(aimed) if aimed else _NOWHERE),
        "asked": _asked(evaluate(earlier, aimed, Action.ALLOW)) if aimed else [],
    }


def default_name(flow: Flow) -> str:
    """The name of the policy default that speaks for `flow`."""
    if flow.hook is Hook.CREATE:
        return "default.socket"
    return "default.bind" if flow.hook in (Hook.BIND, Hook.POST_BIND) else "default.egress"


def _steps(chain: Sequence[Policy], decision: Decision) -> list[dict[str, Any]]:
    """Every governing policy: those asked with what they said, then those that nothing was left to ask."""
    asked = {step.policy.name for step in decision.steps}
    rest = [_step(policy, "not asked, decided before", policy) for policy in chain if policy.name not in asked]
    return _asked(decision) + rest


def _asked(decision: Decision) -> list[dict[str, Any]]:
    return [_step(step.policy, _said(step), step.rule or step.policy) for step in decision.steps]


def _step(policy: Policy, outcome: str, place: Any) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "tier": policy.tier.name.lower(),
        "priority": policy.priority,
        "audit": policy.audit,
        "outcome": outcome,
        "file": place.where.file,
        "line": place.where.line,
    }


def _said(step: Step) -> str:
    if step.rule is not None:
        action = step.rule.action
        hindered = f", which cannot be followed here: {step.action.value}" if action is not step.action else ""
        return f"rule {step.rule.name}: {action.value}{hindered}"
    if step.action is Action.PASS:
        return "no rule matches"
    return f"no rule matches, default: {step.action.value}"
