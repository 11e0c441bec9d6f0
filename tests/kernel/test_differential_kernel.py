# SPDX-License-Identifier: Apache-2.0
"""The kernel says what the reference semantics and the compiled image say: random policies, flows and trees of cgroups.

CGNETD_DIFFERENTIAL_SETS scales the number of policy sets (100 flows each).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.interpret import Verdict as ImageVerdict
from cgnetd.datapath.label import Label, child_label, root_label, unpack_entry, unpack_label
from cgnetd.kernel import features
from cgnetd.policy.evaluate import judge
from cgnetd.policy.select import select
from cgnetd.policy.types import (
    Action,
    Endpoint,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Service,
    Subject,
    Where,
)
from support.agreement import FIRST_ID, compiled, in_words, private_enforcement, put_in_force, told
from support.enforce import Enforcement
from support.judge import components, ref_name
from support.random_policies import policy_sets, random_flow, random_path
from support.verdict_program import Asked, VerdictProgram

SETS = int(os.environ.get("CGNETD_DIFFERENTIAL_SETS", "100"))
FLOWS_A_SET = 100
PATHS_A_SET = 12
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def enforcement(objects: Path) -> Iterator[Enforcement]:
    """Maps and programs of a private root, shared by the random sets: each is a generation."""
    with private_enforcement(objects) as made:
        yield made


@pytest.fixture(scope="module")
def program(enforcement: Enforcement, objects: Path) -> Iterator[VerdictProgram]:
    with VerdictProgram(enforcement.store, features.probe(), objects) as made:
        yield made


def label_at(reader: ImageReader, path: tuple[str, ...]) -> Label:
    label = root_label(reader)
    for name in path:
        label = child_label(reader, label, name.encode())
    return label


class Backends:
    """One backend of each family of each service that is alive, or none: what is chosen is known then."""

    def __init__(self, policies: PolicySet, source: random.Random) -> None:
        self._chosen: dict[tuple[str, int], Endpoint | None] = {}
        for service in policies.services:
            for family in (4, 6):
                endpoints = _endpoints(service, family)
                self._chosen[service.name, family] = source.choice([None, *endpoints]) if endpoints else None
        self._services = policies.services

    def alive(self, service: str, family: int, number: int) -> bool:
        found = next(each for each in self._services if each.name == service)
        return _endpoints(found, family)[number] == self._chosen[service, family]

    def choose(self, service: Service, family: int) -> Endpoint | None:
        return self._chosen[service.name, family]

    def choose_number(self, service_id: int, family: int) -> int | None:
        service = self._services[service_id]
        chosen = self._chosen[service.name, family]
        return None if chosen is None else _endpoints(service, family).index(chosen)


def _endpoints(service: Service, family: int) -> list[Endpoint]:
    return [backend.endpoint for backend in service.backends if backend.endpoint.family == family]


def told_by_image(verdict: ImageVerdict) -> tuple[object, ...]:
    """In the order of Verdict, from `denied` to `new_port`."""
    return (
        verdict.denied,
        verdict.errno,
        verdict.shadow_denied,
        verdict.by_socket,
        verdict.rewritten,
        verdict.shadow_rewritten,
        verdict.reason,
        verdict.rule_id,
        verdict.shadow_rule_id,
        verdict.new_address,
        verdict.new_port,
    )


@settings(max_examples=SETS, deadline=None, suppress_health_check=SLOW)
@given(
    policies=st.one_of(policy_sets(), policy_sets(rewriting=True)),
    seed=st.integers(0, 2**32),
    default=st.sampled_from([Action.ALLOW, Action.DENY]),
)
def test_kernel_agrees_with_reference_and_image(
    enforcement: Enforcement, program: VerdictProgram, policies: PolicySet, seed: int, default: Action
) -> None:
    source = random.Random(seed)
    image, backends = compiled(policies, default), Backends(policies, source)
    reader = ImageReader(image.cells)
    paths = {FIRST_ID + n: random_path(source) for n in range(PATHS_A_SET)}
    labels = {number: label_at(reader, path) for number, path in paths.items()}
    chains = {number: select(policies, path) for number, path in paths.items()}
    put_in_force(enforcement, image, labels, backends.alive)
    asked = [
        Asked(random_flow(source, rewriting=True), source.choice(list(paths)), source.choice([0, *paths]))
        for _ in range(FLOWS_A_SET)
    ]
    for question, answer in zip(asked, program.ask(asked), strict=True):
        both = question.socket_id not in (0, question.task_id)
        socket_label = labels[question.socket_id] if both else None
        image_says = reader.judge(labels[question.task_id], socket_label, question.flow, backends.choose_number)
        assert answer[1:-1] == told_by_image(image_says), (question, answer)
        socket_chain = chains[question.socket_id] if both else None
        decision = judge(chains[question.task_id], socket_chain, question.flow, default, backends.choose)
        assert told(image, answer) == in_words(decision, question.flow), question


@settings(max_examples=max(SETS // 5, 1), deadline=None, suppress_health_check=SLOW)
@given(policies=policy_sets(max_policies=12), upcoming=policy_sets(max_policies=12), seed=st.integers(0, 2**32))
def test_kernel_labels_new_cgroups_for_both_generations(
    enforcement: Enforcement, policies: PolicySet, upcoming: PolicySet, seed: int
) -> None:
    source = random.Random(seed)
    paths = [random_path(source) for _ in range(PATHS_A_SET)]
    images = [compiled(policies, Action.ALLOW), compiled(upcoming, Action.ALLOW)]
    enforcement.load(images[0], hooks=())
    other = 1 - enforcement.store.control().active
    enforcement.put(other, images[1])
    enforcement.label_tree(other, images[1])
    made = make_tree(enforcement.root.path, paths)
    try:
        labels = enforcement.store.labels()
        for path in made:
            entry = unpack_entry(labels[enforcement.root.id_of(path) or 0])
            for slot, image, chosen in ((1 - other, images[0], policies), (other, images[1], upcoming)):
                expected = label_at(ImageReader(image.cells), components(path))
                assert unpack_label(entry[slot]) == (image.index.generation, expected)
                assert [chosen.policies[n] for n in expected.policies] == list(select(chosen, components(path)))
    finally:
        ids = [enforcement.root.id_of(path) for path in made]
        for path in reversed(made):
            (enforcement.root.path / path.lstrip("/")).rmdir()
    assert not set(ids) & set(enforcement.store.labels())


@pytest.mark.parametrize("excluding", [0, 3, 30])
@pytest.mark.parametrize("matching", [1, 25, 26, 27, 40])
def test_kernel_labels_like_the_image_at_the_limit_of_policies(
    enforcement: Enforcement, matching: int, excluding: int
) -> None:
    """A label holds so many policies, excluded ones counted; one more, and everything is denied below."""
    everywhere, here = Pattern(PatternKind.PATH, "/**"), Pattern(PatternKind.PATH, "/limit")
    policies = [Policy(f"m{n}", Subject((everywhere,)), Where("limit.yaml", 1)) for n in range(matching)]
    policies += [Policy(f"x{n}", Subject((everywhere,), (here,)), Where("limit.yaml", 1)) for n in range(excluding)]
    image = compiled(PolicySet(tuple(sorted(policies, key=lambda policy: policy.order))), Action.ALLOW)
    enforcement.load(image, hooks=())
    made = make_tree(enforcement.root.path, [("limit", "below"), ("other",)])
    try:
        found = {path: enforcement.label_of(path) for path in made}
        assert found == {path: label_at(ImageReader(image.cells), components(path)) for path in made}
        limit = found["/limit"]
        assert limit is not None
        assert limit.overflow == (matching + excluding > abi.CHAIN_MAX)
    finally:
        for path in reversed(made):
            (enforcement.root.path / path.lstrip("/")).rmdir()


def make_tree(root: Path, paths: list[tuple[str, ...]]) -> list[str]:
    """Make the cgroups and all above them, in the order of the paths. Returns what was made."""
    made: list[str] = []
    for path in paths:
        for depth in range(1, len(path) + 1):
            directory = "/" + "/".join(path[:depth])
            if directory not in made:
                (root / directory.lstrip("/")).mkdir()
                made.append(directory)
    return made


def test_cgroup_without_label_is_denied(enforcement: Enforcement, program: VerdictProgram) -> None:
    image = compiled(PolicySet(), Action.ALLOW)
    put_in_force(enforcement, image, {FIRST_ID: Label(0)})
    flow = random_flow(random.Random(1))
    ungoverned, missing = program.ask([Asked(flow, FIRST_ID), Asked(flow, FIRST_ID + 999)])
    assert (ungoverned.judged, ungoverned.denied) == (False, False)
    assert (missing.denied, missing.errno, ref_name(image.index, missing.rule)) == (True, 1, "unlabelled")


def test_overflowing_label_is_denied(enforcement: Enforcement, program: VerdictProgram) -> None:
    image = compiled(PolicySet(), Action.ALLOW)
    put_in_force(enforcement, image, {FIRST_ID: Label(0, overflow=True)})
    (answer,) = program.ask([Asked(random_flow(random.Random(2)), FIRST_ID)])
    assert (answer.denied, answer.errno, ref_name(image.index, answer.rule)) == (True, 1, "overflow")
