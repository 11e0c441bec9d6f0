# SPDX-License-Identifier: Apache-2.0
"""Calls to ever new destinations, most of which are let pass by a shorter way than others: none is judged otherwise.

That both ways agree on every kind of rule is what the differential tests see to. Here are the hooks themselves.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf.batch import lookup_all
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
POLICY = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  subject: {{cgroups: [/app]}}
  mode: {mode}
  egress: [{rule}]
"""
DEFAULT_RULE_ID, FIRST_RULE_ID = 0, 4
CALLS = 200
HOOKS = ("connect4", "connect6", "sendmsg4", "sendmsg6")
ALLOWS = "{action: allow, to: [127.0.0.0/8]}"
DENIES = "{action: deny, to: [127.0.0.0/8]}"
DENIES_SOME = "{action: deny, to: [127.0.0.64/26, 127.0.0.130, 127.0.0.133, 127.0.0.134]}"
ELSEWHERE = "{action: deny, to: [10.0.0.0/8]}"
LEAVES = "{action: pass, to: [127.0.0.0/8]}"


def policy(name: str, rule: str, mode: str = "enforce") -> str:
    return POLICY.format(name=name, mode=mode, rule=rule)


def image(*policies: str, default_action: Action = Action.ALLOW, generation: int = 1) -> Image:
    result = parse([Source("a.yaml", "---".join(policies).encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=default_action, generation=generation)


@pytest.fixture
def enforcement(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Enforcement]:
    private_cgroup.child("app")
    with Enforcement(private_cgroup.path, pin_dir, objects) as made:
        yield made


def _denied(connecting: socket.socket, sending: socket.socket, address: str) -> int:
    """How many of a connect and a datagram to the address are refused by policy."""
    refused = int(connecting.connect_ex((address, 9)) == errno.EPERM)
    try:
        sending.sendto(b"", (address, 9))
    except PermissionError:
        refused += 1
    return refused


def denials(prefix: str = "", change: Callable[[], object] = bool) -> int:
    """Denied ones of many connects and as many datagrams, each pair to another address, after `change`."""
    family = socket.AF_INET6 if prefix else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as connecting, socket.socket(family, socket.SOCK_DGRAM) as sending:
        change()
        return sum(_denied(connecting, sending, f"{prefix}127.0.{n // 250}.{1 + n % 250}") for n in range(CALLS))


def counts(enforcement: Enforcement) -> dict[int, int]:
    """Enforced verdicts by the id of the rule, where there are any."""
    with enforcement.slot() as slot:
        return {place // 2: count for place, count in enumerate(slot.totals()) if count and not place % 2}


@pytest.mark.parametrize(
    ("policies", "rule_id"),
    [
        ([policy("a", ALLOWS)], FIRST_RULE_ID),
        ([policy("a", ELSEWHERE), policy("b", ALLOWS), policy("c", DENIES)], FIRST_RULE_ID + 1),
        ([policy("a", LEAVES), policy("b", ALLOWS)], FIRST_RULE_ID + 1),
        ([policy("a", ELSEWHERE), policy("b", ELSEWHERE)], DEFAULT_RULE_ID),
    ],
)
def test_each_is_allowed_and_counted(
    private_cgroup: PrivateCgroup, enforcement: Enforcement, policies: list[str], rule_id: int
) -> None:
    enforcement.load(image(*policies), HOOKS)
    assert private_cgroup.child("app").call(lambda: denials() + denials("::ffff:")) == 0
    assert counts(enforcement) == {rule_id: 4 * CALLS}
    assert not list(lookup_all(enforcement.store.maps["flows"]))


@pytest.mark.parametrize(
    ("policies", "default_action", "rule_id"),
    [
        ([policy("a", DENIES), policy("b", ALLOWS)], Action.ALLOW, FIRST_RULE_ID),
        ([policy("a", LEAVES), policy("b", DENIES)], Action.ALLOW, FIRST_RULE_ID + 1),
        ([policy("a", ELSEWHERE)], Action.DENY, DEFAULT_RULE_ID),
    ],
)
def test_each_is_denied_and_counted(
    private_cgroup: PrivateCgroup,
    enforcement: Enforcement,
    policies: list[str],
    default_action: Action,
    rule_id: int,
) -> None:
    enforcement.load(image(*policies, default_action=default_action), HOOKS)
    assert private_cgroup.child("app").call(denials) == 2 * CALLS
    assert counts(enforcement) == {rule_id: 2 * CALLS}


def test_each_is_judged_by_itself_whatever_became_of_those_before(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    enforcement.load(image(policy("a", f"{DENIES_SOME}, {ALLOWS}")), HOOKS)
    denied = 2 * (64 + 3)
    assert private_cgroup.child("app").call(denials) == denied
    assert counts(enforcement) == {FIRST_RULE_ID: denied, FIRST_RULE_ID + 1: 2 * CALLS - denied}


def test_what_an_audit_policy_would_deny_is_counted_as_that_too(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    enforcement.load(image(policy("a", DENIES, mode="audit"), policy("b", ALLOWS)), HOOKS)
    assert private_cgroup.child("app").call(denials) == 0
    with enforcement.slot() as slot:
        found = {place: count for place, count in enumerate(slot.totals()) if count}
    assert found == {FIRST_RULE_ID * 2 + 1: 2 * CALLS, (FIRST_RULE_ID + 1) * 2: 2 * CALLS}


def test_cgroup_whose_label_is_gone_is_denied_at_once(private_cgroup: PrivateCgroup, enforcement: Enforcement) -> None:
    enforcement.load(image(policy("a", ALLOWS)), HOOKS)
    governed, labels = private_cgroup.child("app"), enforcement.store.maps["labels"]
    key = governed.id.to_bytes(8, sys.byteorder)
    assert governed.call(lambda: denials(change=lambda: labels.delete(key))) == 2 * CALLS


def test_image_of_another_generation_than_the_labels_denies(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    """As if the slot had been filled anew under a call that had read its label."""
    named, other = (image(policy("a", ALLOWS), generation=generation) for generation in (1, 2))
    enforcement.load(replace(named, cells=other.cells), HOOKS)
    assert private_cgroup.child("app").call(denials) == 2 * CALLS
