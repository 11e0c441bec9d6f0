# SPDX-License-Identifier: Apache-2.0
"""What a policy set asks of the kernel, as words that choose the hooks: see rules.NEEDS.

Must not know the names of hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cgnetd.datapath.rules import has_bind, has_egress, has_socket, has_unix, tunes_tcp
from cgnetd.policy.types import Action, Policy, Protocol, Redirect, Rule


def needs_of(policies: Sequence[Policy], default_action: Action) -> frozenset[str]:
    """Nothing without policies. Where what nobody decided is denied, calls to addresses and binds are judged."""
    if not policies:
        return frozenset()
    found = {"egress", "bind"} if default_action is Action.DENY else set()
    for policy in policies:
        found.update(_of_policy(policy))
    return frozenset(found)


def _of_policy(policy: Policy) -> Iterator[str]:
    speaks = {
        "egress": has_egress(policy),
        "bind": has_bind(policy),
        "socket": has_socket(policy),
        "unix": has_unix(policy),
        "tcp": tunes_tcp(policy),
        "bind_view": any(rule.action is Action.REWRITE for rule in policy.bind),
    }
    yield from (word for word, true in speaks.items() if true)
    for rule in policy.egress:
        if rule.redirect is not None:
            yield from _of_redirect(rule, rule.redirect)


def _of_redirect(rule: Rule, redirect: Redirect) -> Iterator[str]:
    if redirect.name is not None:
        yield "unix_redirect"
        return
    if rule.protocols is None or Protocol.TCP in rule.protocols:
        yield "redirect_tcp"
    if rule.protocols is None or Protocol.UDP in rule.protocols:
        yield "redirect_udp"
