# SPDX-License-Identifier: Apache-2.0
"""What policies ask for and this kernel cannot do: each with its place, so that nothing is weakened silently.

What would let calls pass that should not is refused, the whole set with it; what only answers otherwise is told. Must
not know how the kernel was asked.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from cgnetd.errors import Problem
from cgnetd.kernel.features import Features
from cgnetd.policy.types import Action, Policy, PolicySet, Protocol, Rule, Service, Where
from cgnetd.service.words import errno_name

HasCongestion = Callable[[str], bool]  # whether the kernel has, or can load, a congestion control


def refusals(policy_set: PolicySet, features: Features) -> tuple[Problem, ...]:
    """Everything in the set that this kernel could not enforce at all, sorted by place."""
    if features.unix_hooks:
        return ()
    return tuple(
        sorted(
            _problem(
                rule.where,
                "unix",
                f"policy {policy.name} rule {rule.name}: this kernel has no programs on UNIX sockets (Linux 6.7 has "
                "them: cgroup/connect_unix, cgroup/sendmsg_unix); accepted are rules without unix",
            )
            for policy in policy_set.policies
            for rule in policy.egress
            if rule.unix is not None
        )
    )


def degradations(policy_set: PolicySet, features: Features, has_congestion: HasCongestion) -> tuple[Problem, ...]:
    """Everything in the set that this kernel would do otherwise, sorted by place."""
    found: list[Problem] = []
    whole = features.set_retval and features.sock_ops and features.getsockopt
    for policy in policy_set.policies:
        if whole and policy.tcp is None:  # nearly all, nearly everywhere
            continue
        found += _errnos(policy, features)
        found += _tcp(policy, features, has_congestion)
        found += _original_destination(policy, features)
    for service in policy_set.services:
        found += _service_errno(service, features)
    return tuple(sorted(found))


def _errnos(policy: Policy, features: Features) -> Iterator[Problem]:
    if features.set_retval:
        return
    for rule in (*policy.egress, *policy.bind, *policy.socket):
        if rule.action is Action.DENY and rule.errno != errno.EPERM and rule.unix is None:
            name = errno_name(rule.errno)
            message = (
                f"policy {policy.name} rule {rule.name}: this kernel denies with EPERM only (no bpf_set_retval), not "
                f"{name}"
            )
            yield _problem(rule.where, "errno", message)


def _service_errno(service: Service, features: Features) -> Iterator[Problem]:
    if not features.set_retval:
        message = (
            f"service {service.name}: without a backend alive, this kernel denies with EPERM only (no bpf_set_retval), "
            f"not {errno_name(service.errno)}"
        )
        yield _problem(service.where, "errno", message)


def _tcp(policy: Policy, features: Features, has_congestion: HasCongestion) -> Iterator[Problem]:
    if policy.tcp is None:
        return
    if not features.sock_ops:
        message = f"policy {policy.name}: this kernel has no programs on TCP events: connections are not tuned"
        yield _problem(policy.where, "spec.tcp", message)
    elif policy.tcp.congestion is not None and not has_congestion(policy.tcp.congestion):
        message = (
            f"policy {policy.name}: this kernel has no congestion control {policy.tcp.congestion}: connections keep "
            "the one they have"
        )
        yield _problem(policy.where, "spec.tcp.congestion", message)


def _original_destination(policy: Policy, features: Features) -> Iterator[Problem]:
    if features.sock_ops and features.getsockopt:
        return
    for rule in policy.egress:
        if _redirects_tcp(rule):
            message = f"policy {policy.name} rule {rule.name}: this kernel cannot tell proxies SO_ORIGINAL_DST"
            yield _problem(rule.where, "redirect", message)


def _redirects_tcp(rule: Rule) -> bool:
    if rule.redirect is None or rule.redirect.name is not None:
        return False
    return rule.protocols is None or Protocol.TCP in rule.protocols


def _problem(where: Where, key: str, message: str) -> Problem:
    return Problem(where.file, where.line, where.column, key, message)
