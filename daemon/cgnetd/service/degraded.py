# SPDX-License-Identifier: Apache-2.0
"""What policies ask for and this kernel cannot do: each with its place, so that nothing is weakened silently.

Must not know how the kernel was asked.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from cgnetd.errors import Problem
from cgnetd.kernel.features import Features
from cgnetd.policy.types import Action, Policy, PolicySet


def degradations(policy_set: PolicySet, features: Features) -> tuple[Problem, ...]:
    """Everything in the set that this kernel would do otherwise, sorted by place."""
    return tuple(sorted(found for policy in policy_set.policies for found in _of_policy(policy, features)))


def _of_policy(policy: Policy, features: Features) -> Iterator[Problem]:
    if features.set_retval:
        return
    for rule in (*policy.egress, *policy.bind):
        if rule.action is Action.DENY and rule.errno != errno.EPERM:
            name = errno.errorcode[rule.errno]
            message = (
                f"policy {policy.name} rule {rule.name}: this kernel denies with EPERM only (no bpf_set_retval), not "
                f"{name}"
            )
            yield Problem(rule.where.file, rule.where.line, rule.where.column, "errno", message)
