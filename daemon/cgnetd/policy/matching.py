# SPDX-License-Identifier: Apache-2.0
"""Which rule of a policy speaks for a socket call, and what it says. The reference for the compiled tables.

Must not know of chains of policies, of targets, or of speed.
"""

from __future__ import annotations

from collections.abc import Iterable

from .names import EVERY_PATH, is_unsure, match_name
from .ranges import EVERYTHING, covers, within
from .types import Action, Flow, Hook, Policy, Protocol, Rule, Section

UNIX = 1  # Flow.family of a UNIX socket
_EGRESS_HOOKS = frozenset({Hook.CONNECT, Hook.SENDMSG})
_BIND_HOOKS = frozenset({Hook.BIND, Hook.POST_BIND})


def section_of(flow: Flow) -> Section:
    """The list of rules that is asked about the call."""
    if flow.hook in _BIND_HOOKS:
        return Section.BIND
    return Section.SOCKET if flow.hook is Hook.CREATE else Section.EGRESS


def rules_for(policy: Policy, flow: Flow) -> tuple[Rule, ...]:
    match section_of(flow):
        case Section.BIND:
            return policy.bind
        case Section.SOCKET:
            return policy.socket
        case Section.EGRESS:
            return policy.egress


def default_for(policy: Policy, flow: Flow) -> Action:
    """What the policy says where no rule matches. Its default for egress does not speak of UNIX sockets."""
    if flow.family == UNIX:
        return Action.PASS
    match section_of(flow):
        case Section.BIND:
            return policy.default_bind
        case Section.SOCKET:
            return policy.default_socket
        case Section.EGRESS:
            return policy.default_egress


def first_match(rules: Iterable[Rule], flow: Flow) -> Rule | None:
    """The first rule that speaks for the call, of rules of the right section."""
    return next((rule for rule in rules if matches(rule, flow)), None)


def says(rule: Rule, flow: Flow) -> Action:
    """The action of a rule that speaks for the call. A redirect that cannot be followed denies; a port that the kernel
    has picked cannot be rewritten any more."""
    if rule.action is Action.REWRITE and flow.hook is Hook.POST_BIND:
        return Action.ALLOW
    if rule.action is Action.REDIRECT and (flow.hook is Hook.SOCKET or _is_unsure(flow)):
        return Action.DENY
    return rule.action


def _is_unsure(flow: Flow) -> bool:
    return flow.family == UNIX and is_unsure(flow.name)


def matches(rule: Rule, flow: Flow) -> bool:
    """Whether a rule of the right section speaks for the call. Left-out fields match all."""
    if flow.hook is Hook.CREATE:
        return (rule.families is None or flow.family in rule.families) and (
            rule.types is None or flow.type in rule.types
        )
    if (flow.family == UNIX) is not (rule.unix is not None):
        return False
    if flow.hook in _EGRESS_HOOKS and flow.hook not in rule.hooks:
        return False
    if rule.unix is not None:
        return _speaks_for_unsure(rule, rule.unix) if is_unsure(flow.name) else match_name(rule.unix, flow.name)
    return _decides_socket(rule, flow) if flow.hook is Hook.SOCKET else _matches_address(rule, flow)


def _speaks_for_unsure(rule: Rule, globs: tuple[bytes, ...]) -> bool:
    """Whether the rule decides on a name that could be any path: a deny or redirect of any path does, an allow or a
    pass only if it holds for every path."""
    if rule.action in (Action.DENY, Action.REDIRECT):
        return any(glob.startswith(b"/") for glob in globs)
    return EVERY_PATH in globs


def _matches_address(rule: Rule, flow: Flow) -> bool:
    return (
        (rule.protocols is None or flow.protocol in rule.protocols)
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
    it holds for every destination. A raw socket can send every protocol: any deny could match it. A redirect cannot be
    followed there, and counts as a deny.
    """
    if not (flow.raw or rule.protocols is None or flow.protocol in rule.protocols):
        return False
    return rule.action in (Action.DENY, Action.REDIRECT) or _is_unconditional(rule, every_protocol=flow.raw)


def _is_unconditional(rule: Rule, *, every_protocol: bool) -> bool:
    return (
        rule.addresses in (None, EVERYTHING)
        and rule.ports is None
        and rule.source is None
        and rule.hooks >= _EGRESS_HOOKS
        and (not every_protocol or rule.protocols is None or rule.protocols >= frozenset(Protocol))
    )
