# SPDX-License-Identifier: Apache-2.0
"""Whether a rule that rewrites has an address for every family that it can match.

Takes rules as they were built. Must not know how they were written, but for the names of their keys.
"""

from __future__ import annotations

from collections.abc import Iterator

from .document import Loc
from .types import LocalAddresses, Redirect, Rule, Section


def gaps(rule: Rule) -> Iterator[tuple[Loc, str]]:
    """What is wrong: the key below the rule, and the message."""
    if rule.unix is not None:
        return
    matched = _matched(rule)
    narrow = "addresses" if rule.section is Section.BIND else "to"
    if rule.redirect:
        for family in matched - _targets(rule.redirect):
            message = f"has no IPv{family} target, but the rule matches IPv{family}: add one, or narrow `{narrow}`"
            yield ("redirect", "to"), message
    rewritten = rule.rewrite.addresses if rule.rewrite else LocalAddresses()
    for loc, local in ((("source", "address"), rule.source), (("rewrite", "address"), rewritten)):
        for family in matched - _given(local) if local and _given(local) else ():
            message = f"has no IPv{family} address, but the rule matches IPv{family}: narrow `{narrow}` or add one"
            yield loc, message


def _matched(rule: Rule) -> frozenset[int]:
    """The families of which the rule can match an address."""
    if rule.addresses is None:
        return frozenset({4, 6})
    families = ((4, rule.addresses.v4), (6, rule.addresses.v6))
    return frozenset(family for family, ranges in families if ranges)


def _targets(redirect: Redirect) -> frozenset[int]:
    if redirect.service:
        return frozenset(backend.endpoint.family for backend in redirect.service.backends)
    return frozenset(target.family for target in (redirect.v4, redirect.v6) if target)


def _given(local: LocalAddresses) -> frozenset[int]:
    return frozenset(family for family in (4, 6) if local.of(family) is not None)
