# SPDX-License-Identifier: Apache-2.0
"""What the programs remember of earlier verdicts is never a wrong one, and no call goes uncounted by it.

A child makes its calls on one CPU, for each CPU remembers on its own, and waits while a test changes things.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
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
  subject: {{cgroups: ["/{name}"]}}
  mode: {mode}
  egress: [{{name: rule, action: {action}, to: [127.0.0.0/8], log: {log}}}]
"""
FIRST_RULE_ID = 4
CALLS = 200

Answers = list[list[int]]


def image(generation: int, *policies: str) -> Image:
    result = parse([Source("a.yaml", "---".join(policies).encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_image(result.policy_set, default_action=Action.ALLOW, generation=generation)


def policy(action: str, name: str = "app", *, mode: str = "enforce", log: bool = False) -> str:
    return POLICY.format(action=action, name=name, mode=mode, log=str(log).lower())


@pytest.fixture
def enforcement(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Enforcement]:
    for name in ("app", "other"):
        private_cgroup.child(name)
    with Enforcement(private_cgroup.path, pin_dir, objects) as made:
        yield made


NOTHING: Answers = [[], []]
DENIED: Answers = [[errno.EPERM], [errno.EPERM]]


def repeat(made: socket.socket, count: int = CALLS) -> Answers:
    """The different denials of `count` equal connects, and of as many equal datagrams, made on one CPU."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    connects = {made.connect_ex(("127.0.0.1", 9)) for _ in range(count)}
    datagrams = {_send(made) for _ in range(count)}
    harmless = {0, errno.ECONNREFUSED}  # what nobody listening answers to an earlier datagram
    return [sorted(connects - harmless), sorted(datagrams - harmless)]


def _send(made: socket.socket) -> int:
    try:
        made.sendto(b"", ("127.0.0.1", 9))
    except OSError as error:
        return error.errno or -1
    return 0


def in_turns(cgroup: PrivateCgroup, change: Callable[[], None]) -> tuple[Answers, Answers]:
    """What a process of the cgroup is answered before and after a change that it does not take part in."""
    to_child, to_parent = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        cgroup.enter()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            for _ in range(2):
                os.write(to_parent[1], json.dumps(repeat(made)).encode())
                os.read(to_child[0], 1)
        os._exit(0)
    try:
        before = os.read(to_parent[0], 1000)
        change()
        os.write(to_child[1], b"x")
        after = os.read(to_parent[0], 1000)
        os.write(to_child[1], b"x")
    finally:
        os.waitpid(pid, 0)
        for fd in (*to_child, *to_parent):
            os.close(fd)
    return json.loads(before), json.loads(after)


def counted(enforcement: Enforcement, rule_id: int) -> int:
    with enforcement.slot() as slot:
        return slot.totals()[rule_id * 2]


def test_every_repeated_call_is_counted(private_cgroup: PrivateCgroup, enforcement: Enforcement) -> None:
    enforcement.load(image(1, policy("allow")))

    def calls() -> Answers:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return repeat(made)

    assert private_cgroup.child("app").call(calls) == NOTHING
    assert counted(enforcement, FIRST_RULE_ID) == 2 * CALLS


@pytest.mark.parametrize(("first", "then"), [("allow", "deny"), ("deny", "allow")])
def test_new_generation_is_believed_at_once(
    private_cgroup: PrivateCgroup, enforcement: Enforcement, first: str, then: str
) -> None:
    answers = {"allow": NOTHING, "deny": DENIED}
    enforcement.load(image(1, policy(first)))
    found = in_turns(private_cgroup.child("app"), lambda: enforcement.load(image(2, policy(then))))
    assert found == (answers[first], answers[then])


def test_policy_on_a_cgroup_that_had_none_is_believed_at_once(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    enforcement.load(image(1, policy("deny", "other")))
    found = in_turns(private_cgroup.child("app"), lambda: enforcement.load(image(2, policy("deny"))))
    assert found == (NOTHING, DENIED)


@pytest.mark.parametrize("name", ["app", "free"])
def test_label_that_is_written_again_is_believed_at_once(
    private_cgroup: PrivateCgroup, enforcement: Enforcement, name: str
) -> None:
    """A label that somebody had edited, and that the daemon mends within one generation."""
    governed, subject = private_cgroup.child("other"), private_cgroup.child(name)
    enforcement.load(image(1, policy("deny", "other"), policy("allow")))
    label = enforcement.store.label(governed.id)
    assert label is not None
    found = in_turns(subject, lambda: enforcement.store.set_labels({subject.id: label}))
    assert found == (NOTHING, DENIED)


def test_socket_of_another_cgroup_is_judged_by_both_however_often(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    enforcement.load(image(1, policy("allow"), policy("deny", "other")))

    def calls() -> tuple[Answers, Answers]:
        private_cgroup.child("other").enter()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign:
            private_cgroup.child("app").enter()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                return repeat(own), repeat(foreign)

    assert private_cgroup.call(calls) == (NOTHING, DENIED)


@pytest.mark.parametrize("text", [policy("deny", mode="audit", log=True), policy("allow", log=True)])
def test_call_that_makes_an_event_is_in_it_each_time(
    private_cgroup: PrivateCgroup, enforcement: Enforcement, text: str
) -> None:
    enforcement.load(image(1, text))

    def calls() -> Answers:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return repeat(made)

    assert private_cgroup.child("app").call(calls) == NOTHING
    flows = lookup_all(enforcement.store.maps["flows"])
    assert sum(int.from_bytes(flow[:8], sys.byteorder) for _, flow in flows) == 2 * CALLS


def test_no_destination_is_taken_for_another_of_more_than_are_remembered(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    """Three rounds: calls are remembered when they come for the second time."""
    rules = "{action: deny, to: [127.0.0.0/8], ports: [3000-3999]}, {name: rule, action: allow, to: [127.0.0.0/8]}"
    one_rule = "{name: rule, action: allow, to: [127.0.0.0/8], log: false}"
    enforcement.load(image(1, policy("allow").replace(one_rule, rules)))
    ports, rounds = range(2000, 5000), 3

    def denied() -> list[list[int]]:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return [[port for port in ports if made.connect_ex(("127.0.0.1", port))] for _ in range(rounds)]

    assert private_cgroup.child("app").call(denied) == [list(range(3000, 4000))] * rounds
    assert counted(enforcement, FIRST_RULE_ID) == rounds * 1000
    assert counted(enforcement, FIRST_RULE_ID + 1) == rounds * 2000
