# SPDX-License-Identifier: Apache-2.0
"""What a policy says of sockets whose later calls no hook sees: one rule reference a protocol class, and one for raw.

Nothing is known of such a socket's destinations, so the first deny that could apply denies, and only a rule without any
condition allows or passes. Must not know of tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from cgnetd.datapath.rows import EGRESS_HOOKS, PROTOCOLS
from cgnetd.policy.ranges import EVERYTHING
from cgnetd.policy.types import Action, Protocol, Rule


def opaque_references(egress: Sequence[tuple[int, Rule]], fallback: int) -> tuple[int, ...]:
    """References for abi.PROTO_TCP .. PROTO_OTHER, then OPAQUE_RAW, of rules on addresses with their own references;
    `fallback` where no rule decides. A rule that redirects denies: it cannot be followed there."""
    decisive = [(reference, rule) for reference, rule in egress if _denies(rule) or _unconditional(rule)]
    by_protocol = [next((ref for ref, rule in decisive if _names(rule, p)), fallback) for p in PROTOCOLS]
    raw = next((ref for ref, rule in decisive if _denies(rule) or _names_all(rule)), fallback)
    return (*by_protocol, raw)


def _denies(rule: Rule) -> bool:
    return rule.action in (Action.DENY, Action.REDIRECT)


def _names(rule: Rule, protocol: Protocol) -> bool:
    return rule.protocols is None or protocol in rule.protocols


def _names_all(rule: Rule) -> bool:
    return rule.protocols is None or rule.protocols.issuperset(PROTOCOLS)


def _unconditional(rule: Rule) -> bool:
    everywhere = rule.addresses is None or rule.addresses == EVERYTHING
    return everywhere and rule.ports is None and rule.source is None and rule.hooks.issuperset(EGRESS_HOOKS)
