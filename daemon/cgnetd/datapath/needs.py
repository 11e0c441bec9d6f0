# SPDX-License-Identifier: Apache-2.0
"""What a policy set asks of the kernel, as words that choose the hooks: see rules.NEEDS.

Must not know the names of hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cgnetd.datapath.rules import has_bind, has_egress, has_socket, has_unix, tunes_tcp
from cgnetd.policy.types import Action, Policy, Protocol, Redirect, Rule


def needs_of(policies: Iterable[frozenset[str]], default_action: Action) -> frozenset[str]:
    """Of a set, given what each policy asks for. Nothing without policies. Where what nobody decided is denied, calls
    to addresses and binds are judged."""
    asked = list(policies)
    if not asked:
        return frozenset()
    found = frozenset({"egress", "bind"}) if default_action is Action.DENY else frozenset()
    return found.union(*asked)


def policy_needs(policy: Policy) -> frozenset[str]:
    """Of one policy."""
    return frozenset(_of_policy(policy))


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
