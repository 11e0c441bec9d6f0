# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call beyond its verdict, by the reference semantics: where it goes, from where, with what set.

Pure. Must not know of files, the daemon or how it is shown.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cgnetd.datapath.words import name_text
from cgnetd.policy.evaluate import Choose, evaluate, first_backend, rewritten
from cgnetd.policy.matching import says
from cgnetd.policy.ranges import covers
from cgnetd.policy.tcp import tcp_settings
from cgnetd.policy.types import (
    Action,
    Backend,
    Decision,
    Endpoint,
    Flow,
    Hook,
    Outcome,
    Policy,
    Protocol,
    Rule,
    Service,
)


@dataclass(frozen=True, slots=True)
class Judged:
    """A decision, and the rule that rewrites the call, or would if the new destination were not denied."""

    decision: Decision
    policy: Policy | None = None
    rule: Rule | None = None
    aimed: Flow | None = None  # the call as the rule sends it on; None if it cannot be followed
    service: Service | None = None
    backends: tuple[tuple[Backend, Decision], ...] = ()  # of the service, each with the decision if it is chosen


def judge_each(chain: Sequence[Policy], flow: Flow, default_action: Action) -> Judged:
    """The verdict for a task that `chain` governs. Of a service, the first backend that is not denied speaks."""
    decision = evaluate(chain, flow, default_action)
    policy, rule = _rewriting(decision, flow)
    if rule is None:
        return Judged(decision)
    service = rule.redirect.service if rule.redirect else None
    if service is None:
        return Judged(decision, policy, rule, _aimed(rule, flow, first_backend))
    backends = [backend for backend in service.backends if backend.endpoint.family == flow.family]
    each = [(backend, evaluate(chain, flow, default_action, _always(service, backend))) for backend in backends]
    chosen = next((one for one in each if one[1].enforced.action is not Action.DENY), each[0])
    aimed = _aimed(rule, flow, _always(service, chosen[0]))
    return Judged(chosen[1], policy, rule, aimed, service, tuple(each))


def _rewriting(decision: Decision, flow: Flow) -> tuple[Policy | None, Rule | None]:
    for step in reversed(decision.steps):
        if step.action is not Action.PASS and not step.audit:
            rewrites = step.rule is not None and step.rule.action.rewrites and step.action is not Action.ALLOW
            return (step.policy, step.rule) if rewrites and flow.hook is not Hook.SOCKET else (None, None)
    return None, None


def _always(service: Service, backend: Backend) -> Choose:
    def choose(asked: Service, family: int) -> Endpoint | None:
        return backend.endpoint if asked is service else first_backend(asked, family)

    return choose


def _aimed(rule: Rule, flow: Flow, choose: Choose) -> Flow | None:
    if not says(rule, flow).rewrites:
        return None
    if flow.hook is Hook.BIND and not covers(rule.addresses, flow.family, flow.address):
        flow = replace(flow, family=4)  # a bind to [::] is one to 0.0.0.0 too, and the rule speaks for that
    return rewritten(rule, flow, choose)


def place_of(flow: Flow) -> dict[str, Any]:
    """Where a rewritten call goes."""
    if flow.name:
        return {"new_address": "", "new_port": 0, "new_name": name_text(flow.name)}
    return {"new_address": format_address(flow.family, flow.address), "new_port": flow.port, "new_name": ""}


def new_place(outcome: Outcome, flow: Flow) -> dict[str, Any]:
    """Where the call goes instead; empty where it goes where it was meant to."""
    rule, target = outcome.rule, outcome.target
    if target is not None:
        return place_of(replace(flow, family=target.family, address=target.address, port=target.port))
    if outcome.action.rewrites and rule and rule.redirect and rule.redirect.name:
        return place_of(replace(flow, name=rule.redirect.name))
    return {"new_address": "", "new_port": 0, "new_name": ""}


def settings(outcome: Outcome, flow: Flow) -> dict[str, Any]:
    """What the rule that lets the call pass puts on it: local address, options, no need of a capability."""
    rule = outcome.rule
    if rule is None or outcome.action is Action.DENY:
        return {}
    found: dict[str, Any] = {}
    source = rule.source.of(flow.family) if rule.source else None
    if source is not None:
        found["source_address"] = format_address(flow.family, source)
    if rule.privileged and flow.hook is Hook.BIND:
        found["privileged"] = True
    if rule.options is not None:
        found |= {name: value for name, value in asdict(rule.options).items() if value is not None}
    return found


def service_answer(judged: Judged, flow: Flow) -> dict[str, Any] | None:
    """The service that chooses the destination, and each backend that it chooses among with its share of the calls."""
    service = judged.service
    if service is None:
        return None
    total = sum(backend.weight for backend, _ in judged.backends)
    return {
        "name": service.name,
        "balance": "sticky" if service.sticky_ns else "random",
        "backends": [
            {
                "address": format_address(backend.endpoint.family, backend.endpoint.address),
                "port": backend.endpoint.port or flow.port,
                "weight": backend.weight,
                "share": round(backend.weight / total, 4),
                "verdict": decision.enforced.action.value,
            }
            for backend, decision in judged.backends
        ],
    }


def before(chain: Sequence[Policy], judged: Judged) -> tuple[Policy, ...]:
    """What judges the new destination: the policies before the rule's, and the rules before it in its own."""
    policy, rule = judged.policy, judged.rule
    if policy is None or rule is None:
        return ()
    egress, bind = _rules_before(policy.egress, rule), _rules_before(policy.bind, rule)
    own = replace(policy, egress=egress, bind=bind, default_egress=Action.PASS, default_bind=Action.PASS)
    return (*chain[: chain.index(policy)], own)


def _rules_before(rules: Sequence[Rule], rule: Rule) -> tuple[Rule, ...]:
    at = next((index for index, other in enumerate(rules) if other is rule), 0)
    return tuple(rules[:at])


def tcp_answer(chain: Sequence[Policy], flow: Flow) -> dict[str, Any]:
    """How the TCP connections of a task that `chain` governs are tuned, by the policy language's own keys."""
    if flow.protocol is not Protocol.TCP:
        return {}
    tuned = tcp_settings(chain)
    words = {
        "congestion": tuned.congestion,
        "initialRtoMs": tuned.initial_rto_ms,
        "initialWindow": tuned.initial_window,
    }
    return {word: value for word, value in words.items() if value is not None}


def format_address(family: int, address: int) -> str:
    return str(ipaddress.IPv4Address(address) if family == 4 else ipaddress.IPv6Address(address))
