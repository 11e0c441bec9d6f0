# SPDX-License-Identifier: Apache-2.0
"""A call judged by the reference semantics from policy files, as `explain` shows it.

Must not know of the daemon, the kernel or the cgroup tree.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from cgnetd.cli.crowded import RULE, can_be_crowded, is_crowded
from cgnetd.cli.offline import load
from cgnetd.datapath.compile import compile_image
from cgnetd.errors import PolicyError
from cgnetd.policy.evaluate import judge
from cgnetd.policy.select import select
from cgnetd.policy.types import Action, Decision, Flow, Outcome, Policy, Step

_SOURCE = "from the files"
_DENIED = {"verdict": "deny", "errno": "EPERM", "policy": "", "rule": RULE, "file": "", "line": 0}


def judge_offline(places: Sequence[str], path: tuple[str, ...], flow: Flow, default_action: str) -> dict[str, Any]:
    """Verdict, shadow verdict, deciding rules and every governing policy for a task at `path`.

    Raises PolicyError when the files are no valid policy set, UsageError when there are none.
    """
    loaded = load(places)
    if loaded.policy_set is None:
        raise PolicyError(loaded.problems)
    if can_be_crowded(loaded.policy_set):
        image = compile_image(loaded.policy_set, default_action=Action(default_action), generation=1)
        if is_crowded(image, path):
            return (
                _DENIED | {f"shadow_{key}": value for key, value in _DENIED.items()} | {"source": _SOURCE, "steps": []}
            )
    chain = select(loaded.policy_set, path)
    decision = judge(chain, None, flow, Action(default_action))
    return {
        **_outcome("", decision.enforced, flow),
        **_outcome("shadow_", decision.shadow, flow),
        "source": _SOURCE,
        "steps": _steps(chain, decision),
    }


def _outcome(prefix: str, outcome: Outcome, flow: Flow) -> dict[str, Any]:
    denied = outcome.action is Action.DENY
    found: dict[str, Any] = {
        "verdict": "deny" if denied else "allow",
        "errno": _errno_name(outcome.errno) if denied else "",
    }
    policy, rule = outcome.policy, outcome.rule
    if policy is None:
        found |= {"policy": "", "rule": "default_action", "file": "", "line": 0}
    else:
        where = rule.where if rule else policy.default_where or policy.where
        name = rule.name if rule else default_name(flow)
        found |= {"policy": policy.name, "rule": name, "file": where.file, "line": where.line}
    return {prefix + key: value for key, value in found.items()}


def default_name(flow: Flow) -> str:
    """The name of the policy default that speaks for `flow`."""
    return "default.bind" if flow.hook.value in ("bind", "post_bind") else "default.egress"


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _steps(chain: Sequence[Policy], decision: Decision) -> list[dict[str, Any]]:
    """Every governing policy: those asked with what they said, then those that nothing was left to ask."""
    asked = {step.policy.name for step in decision.steps}
    rest = [_step(policy, "not asked, decided before", policy) for policy in chain if policy.name not in asked]
    return [_step(step.policy, _said(step), step.rule or step.policy) for step in decision.steps] + rest


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
        return f"rule {step.rule.name}: {step.action.value}"
    if step.action is Action.PASS:
        return "no rule matches"
    return f"no rule matches, default: {step.action.value}"
