# SPDX-License-Identifier: Apache-2.0
"""What happens to a socket call: the reference semantics of the policy language, as code to be read.

Every other verdict (compiled image, kernel) is tested against this one. Must not know of compiled tables or of speed.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from .ranges import EVERYTHING, covers, within
from .types import Action, Decision, Flow, Hook, Outcome, Policy, Protocol, Rule, Step

_EGRESS_HOOKS = frozenset({Hook.CONNECT, Hook.SENDMSG})
_BIND_HOOKS = frozenset({Hook.BIND, Hook.POST_BIND})


def judge(
    task_chain: Sequence[Policy] | None,
    socket_chain: Sequence[Policy] | None,
    flow: Flow,
    default_action: Action,
) -> Decision:
    """The verdict on a call by a task in one cgroup on a socket made in another (None: the same one, or ungoverned).

    Either can deny, the task's cgroup is asked first; when both allow, the task's decision stands, or the socket's if
    only that is governed. A chain that is None or empty has no say.
    """
    decisions = [evaluate(chain, flow, default_action) for chain in (task_chain, socket_chain) if chain]
    return _first_denying(decisions) if decisions else evaluate((), flow, default_action)


def evaluate(chain: Sequence[Policy], flow: Flow, default_action: Action) -> Decision:
    """The verdict of the policies that govern one cgroup, in order of evaluation as `select` gives them.

    `default_action` (ALLOW or DENY) speaks where no policy decided; an empty chain is an ungoverned cgroup and allows.
    A bind to [::] of a socket that is not IPv6-only takes the port on 0.0.0.0 too: it is judged as both.
    """
    decision = _walk(chain, flow, default_action)
    if not _binds_both_families(flow):
        return decision
    as_v4 = _walk(chain, replace(flow, family=4), default_action)
    return _first_denying([decision, as_v4])


def _binds_both_families(flow: Flow) -> bool:
    return flow.hook in _BIND_HOOKS and flow.family == 6 and flow.address == 0 and not flow.v6_only


def _first_denying(decisions: Sequence[Decision]) -> Decision:
    """The first decision that denies, else the first; for the shadow verdict likewise, on its own."""
    enforced = next((d for d in decisions if d.enforced.action is Action.DENY), decisions[0])
    shadow = next((d for d in decisions if d.shadow.action is Action.DENY), decisions[0])
    return replace(enforced, shadow=shadow.shadow)


def _walk(chain: Sequence[Policy], flow: Flow, default_action: Action) -> Decision:
    """Ask the policies in order. An audit policy never decides: it only shapes the shadow verdict."""
    steps: list[Step] = []
    shadow: Outcome | None = None
    for policy in chain:
        rule, outcome = _ask(policy, flow)
        steps.append(Step(policy, rule, outcome.action if outcome else Action.PASS, policy.audit))
        if outcome is None:
            continue
        shadow = shadow or outcome
        if not policy.audit:
            return Decision(outcome, shadow, tuple(steps))
    nothing_decided = _outcome(default_action if chain else Action.ALLOW)
    return Decision(nothing_decided, shadow or nothing_decided, tuple(steps))


def _ask(policy: Policy, flow: Flow) -> tuple[Rule | None, Outcome | None]:
    """The rule of the policy that matches, if any, and what the policy decides; None: it passes to the next policy."""
    if flow.hook is Hook.SOCKET:
        rule = next((rule for rule in policy.egress if _decides_socket(rule, flow)), None)
    else:
        rules = policy.bind if flow.hook in _BIND_HOOKS else policy.egress
        rule = next((rule for rule in rules if _matches(rule, flow)), None)
    default = policy.default_bind if flow.hook in _BIND_HOOKS else policy.default_egress
    action = rule.action if rule else default
    return rule, None if action is Action.PASS else _outcome(action, policy, rule)


def _outcome(action: Action, policy: Policy | None = None, rule: Rule | None = None) -> Outcome:
    denial = (rule.errno if rule else errno.EPERM) if action is Action.DENY else 0
    return Outcome(action, denial, policy, rule)


def _matches(rule: Rule, flow: Flow) -> bool:
    """Whether a rule of the right section matches a call to connect, sendmsg or bind. Left-out fields match all."""
    return (
        (flow.hook not in _EGRESS_HOOKS or flow.hook in rule.hooks)
        and (rule.protocols is None or flow.protocol in rule.protocols)
        and covers(rule.addresses, flow.family, flow.address)
        and (rule.ports is None or _port_matches(rule, rule.ports, flow))
    )


def _port_matches(rule: Rule, ports: tuple[tuple[int, int], ...], flow: Flow) -> bool:
    """`ephemeral` matches a bind to port 0, and then whatever port the kernel picked."""
    port_is_left_to_kernel = flow.hook is Hook.POST_BIND or (flow.hook is Hook.BIND and flow.port == 0)
    return (rule.ephemeral and port_is_left_to_kernel) or (flow.port != 0 and within(flow.port, ports))


def _decides_socket(rule: Rule, flow: Flow) -> bool:
    """Whether an egress rule decides on socket() of a kind whose later calls no hook sees.

    Where the socket will send is not known, so a deny that could match counts, while an allow or a pass counts only if
    it holds for every destination. A raw socket can send every protocol: any deny could match it.
    """
    if not (flow.raw or rule.protocols is None or flow.protocol in rule.protocols):
        return False
    return rule.action is Action.DENY or _is_unconditional(rule, every_protocol=flow.raw)


def _is_unconditional(rule: Rule, *, every_protocol: bool) -> bool:
    return (
        rule.addresses in (None, EVERYTHING)
        and rule.ports is None
        and rule.hooks >= _EGRESS_HOOKS
        and (not every_protocol or rule.protocols is None or rule.protocols >= frozenset(Protocol))
    )
