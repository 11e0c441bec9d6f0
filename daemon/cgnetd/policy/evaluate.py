# SPDX-License-Identifier: Apache-2.0
"""What happens to a socket call: the reference semantics of the policy language, as code to be read.

Every other verdict (compiled image, kernel) is tested against this one. Must not know of compiled tables or of speed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile

from .matching import UNIX, default_for, first_match, rules_for, says
from .types import Action, Decision, Endpoint, Flow, Hook, Outcome, Policy, Rule, Service, Step

Choose = Callable[[Service, int], Endpoint | None]
_BIND_HOOKS = frozenset({Hook.BIND, Hook.POST_BIND})


def first_backend(service: Service, family: int) -> Endpoint | None:
    """The first backend of the family (4 or 6), as if it were alive."""
    return next((b.endpoint for b in service.backends if b.endpoint.family == family), None)


def judge(
    task_chain: Sequence[Policy] | None,
    socket_chain: Sequence[Policy] | None,
    flow: Flow,
    default_action: Action,
    choose: Choose = first_backend,
) -> Decision:
    """The verdict on a call by a task in one cgroup on a socket made in another (None: the same one, or ungoverned).

    Either can deny, the task's cgroup is asked first; when both allow, the task's decision stands, or the socket's if
    only that is governed. A chain that is None or empty has no say. The socket's cgroup judges the call as it was made
    and rewrites nothing: what rewrites there, allows.
    """
    decisions = [evaluate(task_chain, flow, default_action, choose)] if task_chain else []
    if socket_chain:
        decisions.append(_decide(socket_chain, flow, default_action, None))
    return _first_denying(decisions) if decisions else evaluate((), flow, default_action)


def evaluate(chain: Sequence[Policy], flow: Flow, default_action: Action, choose: Choose = first_backend) -> Decision:
    """The verdict of the policies that govern one cgroup, in order of evaluation as `select` gives them.

    `default_action` (ALLOW or DENY) speaks where no policy decided; not of UNIX names and new sockets (CREATE), which
    are allowed then. An empty chain is an ungoverned cgroup and allows. `choose(service, family)` gives the backend of
    a redirect to a service, None if none is alive: that denies with the service's errno.
    """
    return _decide(chain, flow, default_action, _choosing_once(choose))


def _choosing_once(choose: Choose) -> Choose:
    """The enforced and the shadow verdict of one call tell the same backend."""
    chosen: dict[tuple[str, int], Endpoint | None] = {}

    def choose_once(service: Service, family: int) -> Endpoint | None:
        if (service.name, family) not in chosen:
            chosen[service.name, family] = choose(service, family)
        return chosen[service.name, family]

    return choose_once


def _decide(chain: Sequence[Policy], flow: Flow, default_action: Action, choose: Choose | None) -> Decision:
    """A bind to [::] of a socket that is not IPv6-only takes the port on 0.0.0.0 too: it is judged as both."""
    both = flow.hook in _BIND_HOOKS and flow.family == 6 and flow.address == 0 and not flow.v6_only
    decision = _walk(chain, flow, default_action, choose, both)
    if not both:
        return decision
    as_v4 = _walk(chain, replace(flow, family=4), default_action, choose, both)
    enforced = _of_both_families(decision.enforced, as_v4.enforced)
    shadow = _of_both_families(decision.shadow, as_v4.shadow)
    is_v4 = enforced is not decision.enforced
    return Decision(enforced, shadow, as_v4.steps if is_v4 else decision.steps)


def _of_both_families(v6: Outcome, v4: Outcome) -> Outcome:
    """The outcome of a bind to [::] that is also one to 0.0.0.0: the one that denies; otherwise that for [::] if it
    rewrites the address, else that for 0.0.0.0 if it rewrites; an address that it keeps is still [::]."""
    for outcome in (v6, v4):
        if outcome.action is Action.DENY:
            return outcome
    if v4.action is not Action.REWRITE or v4.target is None or _rewrites_address(v6, 6):
        return v6
    return v4 if _rewrites_address(v4, 4) else replace(v4, target=replace(v4.target, family=6))


def _rewrites_address(outcome: Outcome, family: int) -> bool:
    rewrite = outcome.rule.rewrite if outcome.rule and outcome.action is Action.REWRITE else None
    return rewrite is not None and rewrite.addresses.of(family) is not None


def _first_denying(decisions: Sequence[Decision]) -> Decision:
    """The first decision that denies, else the first; for the shadow verdict likewise, on its own."""
    enforced = next((d for d in decisions if d.enforced.action is Action.DENY), decisions[0])
    shadow = next((d for d in decisions if d.shadow.action is Action.DENY), decisions[0])
    return replace(enforced, shadow=shadow.shadow)


def _walk(chain: Sequence[Policy], flow: Flow, default_action: Action, choose: Choose | None, both: bool) -> Decision:
    """Ask the policies in order. An audit policy never decides: it only shapes the shadow verdict. `both`: the call is
    a bind of the other family too."""
    steps: list[Step] = []
    shadow: Outcome | None = None
    for index, policy in enumerate(chain):
        rule, outcome = _ask(policy, flow)
        steps.append(Step(policy, rule, outcome.action if outcome else Action.PASS, policy.audit))
        if outcome is None:
            continue
        shadow = shadow or _followed(outcome, flow, chain[:index], choose, both)
        if not policy.audit:
            enforcing = [before for before in chain[:index] if not before.audit]
            return Decision(_followed(outcome, flow, enforcing, choose, both), shadow, tuple(steps))
    has_default_action = chain and flow.family != UNIX and flow.hook is not Hook.CREATE
    nothing_decided = _outcome(default_action if has_default_action else Action.ALLOW)
    return Decision(nothing_decided, shadow or nothing_decided, tuple(steps))


def _ask(policy: Policy, flow: Flow) -> tuple[Rule | None, Outcome | None]:
    """The rule of the policy that matches, if any, and what the policy decides; None: it passes to the next policy."""
    rule = first_match(rules_for(policy, flow), flow)
    action = says(rule, flow) if rule else default_for(policy, flow)
    return rule, None if action is Action.PASS else _outcome(action, policy, rule)


def _outcome(action: Action, policy: Policy | None = None, rule: Rule | None = None) -> Outcome:
    denial = (rule.errno if rule else errno.EPERM) if action is Action.DENY else 0
    return Outcome(action, denial, policy, rule)


def _followed(outcome: Outcome, flow: Flow, before: Sequence[Policy], choose: Choose | None, both: bool) -> Outcome:
    """What becomes of a call that a rule rewrites: it goes to its target, unless what comes before the rule denies it.

    `before` are the policies before the rule's own. Without `choose` nothing is rewritten: the call is let pass.
    `both`: a bind to [::] that keeps the address takes the new port on 0.0.0.0 too, and is judged as both.
    """
    policy, rule = outcome.policy, outcome.rule
    if not outcome.action.rewrites or policy is None or rule is None:
        return outcome
    if choose is None:
        return replace(outcome, action=Action.ALLOW)
    aimed = rewritten(rule, flow, choose)
    if aimed is None:
        service = rule.redirect.service if rule.redirect else None
        return Outcome(Action.DENY, service.errno if service else errno.EPERM, policy, rule)
    target = None if flow.family == UNIX else Endpoint(aimed.family, aimed.address, aimed.port)
    places = [aimed, replace(aimed, family=10 - aimed.family)] if both and not aimed.address else [aimed]
    denials = (_denial_before(rule, policy, before, place) for place in places)
    return next(filter(None, denials), None) or replace(outcome, target=target)


def rewritten(rule: Rule, flow: Flow, choose: Choose = first_backend) -> Flow | None:
    """The call as the rule sends it on, a rule that matches it and redirects or rewrites; None: no backend is alive."""
    if rule.redirect:
        if rule.redirect.name is not None:
            return replace(flow, name=rule.redirect.name)
        of_family = rule.redirect.v4 if flow.family == 4 else rule.redirect.v6
        target = choose(rule.redirect.service, flow.family) if rule.redirect.service else of_family
        return replace(flow, address=target.address, port=target.port or flow.port) if target else None
    if rule.rewrite:
        address, port = rule.rewrite.addresses.of(flow.family), rule.rewrite.port
        return replace(
            flow, address=flow.address if address is None else address, port=flow.port if port is None else port
        )
    return flow


def _denial_before(rule: Rule, policy: Policy, before: Sequence[Policy], aimed: Flow) -> Outcome | None:
    """What denies the call at its target, of all that comes before the rule: whole policies, then rules of its own."""
    for earlier in before:
        _, outcome = _ask(earlier, aimed)
        if outcome:
            return outcome if outcome.action is Action.DENY else None
    own = first_match(takewhile(lambda other: other is not rule, rules_for(policy, aimed)), aimed)
    return _outcome(Action.DENY, policy, own) if own and says(own, aimed) is Action.DENY else None
