# SPDX-License-Identifier: Apache-2.0
"""The kernel says what the reference semantics and the compiled image say: random policies, flows and trees of cgroups.

CGNETD_DIFFERENTIAL_SETS scales the number of policy sets (100 flows each).
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.interpret import Verdict as ImageVerdict
from cgnetd.datapath.label import Label, child_label, pack_entry, pack_label, root_label, unpack_entry, unpack_label
from cgnetd.datapath.live import Alive
from cgnetd.kernel import features
from cgnetd.policy.evaluate import judge
from cgnetd.policy.matching import section_of
from cgnetd.policy.select import select
from cgnetd.policy.types import (
    Action,
    Decision,
    Endpoint,
    Flow,
    Outcome,
    Pattern,
    PatternKind,
    Policy,
    PolicySet,
    Service,
    Subject,
    Where,
)
from support import sandbox
from support.enforce import Enforcement
from support.judge import components, ref_name
from support.random_policies import policy_sets, random_flow, random_path
from support.verdict_program import Asked, Verdict, VerdictProgram

SETS = int(os.environ.get("CGNETD_DIFFERENTIAL_SETS", "100"))
FLOWS_A_SET = 100
PATHS_A_SET = 12
FIRST_ID = 1 << 40  # ids that no cgroup here has
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
MAPPED = 0xFFFF << 32  # the IPv6 form of an IPv4 address
_generations = itertools.count(1)


class Told(NamedTuple):
    """A verdict by names."""

    errno: int
    rule: str
    rewritten: bool
    new_address: int
    new_port: int
    new_name: bytes
    shadow_denied: bool
    shadow_rewritten: bool
    shadow_rule: str


def first_alive(_service: str, _family: int, number: int) -> bool:
    return number == 0


@pytest.fixture(scope="module")
def enforcement(objects: Path) -> Iterator[Enforcement]:
    """Maps and programs of a private root, shared by the random sets: each is a generation."""
    with (
        sandbox.cgroup() as cgroup,
        sandbox.bpffs_mount() as bpffs,
        Enforcement(cgroup.path, bpffs / "cgnetd", objects) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def program(enforcement: Enforcement, objects: Path) -> Iterator[VerdictProgram]:
    with VerdictProgram(enforcement.store, features.probe(), objects) as made:
        yield made


def compiled(policies: PolicySet, default: Action) -> Image:
    return compile_image(policies, default_action=default, generation=next(_generations))


def label_at(reader: ImageReader, path: tuple[str, ...]) -> Label:
    label = root_label(reader)
    for name in path:
        label = child_label(reader, label, name.encode())
    return label


def put_in_force(enforcement: Enforcement, image: Image, labels: dict[int, Label], alive: Alive = first_alive) -> None:
    """The image, with labels for cgroup ids that stand for no real cgroups."""
    slot = 1 - enforcement.store.control().active
    enforcement.put(slot, image)
    with enforcement.store.live(slot) as live:
        for number, cell in enumerate(image.live.cells(device_index={}, present=(), alive=alive)):
            live.set(number, cell)
    packed = {number: pack_label(label, image.index.generation) for number, label in labels.items()}
    enforcement.store.set_labels(
        {number: pack_entry([label if at == slot else None for at in range(2)]) for number, label in packed.items()}
    )
    enforcement.store.activate(slot)


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


def name_of(outcome: Outcome, flow: Flow) -> str:
    if outcome.policy is None:
        return "default_action"
    return f"{outcome.policy.name}/{outcome.rule.name if outcome.rule else f'default.{section_of(flow).value}'}"


def in_words(decision: Decision, flow: Flow) -> Told:
    """What the reference says, as the programs tell it."""
    enforced, shadow = decision.enforced, decision.shadow
    target, redirect = enforced.target, enforced.rule.redirect if enforced.rule else None
    new_address = target.address if target else 0
    if target and flow.family == 6 and target.family == 4:
        new_address |= MAPPED
    return Told(
        enforced.errno,
        name_of(enforced, flow),
        enforced.action.rewrites,
        new_address,
        target.port if target else 0,
        (redirect.name or b"") if redirect and enforced.action.rewrites else b"",
        shadow.action is Action.DENY,
        shadow.action.rewrites,
        name_of(shadow, flow),
    )


def told(image: Image, verdict: Verdict) -> Told:
    return Told(
        verdict.errno,
        ref_name(image.index, verdict.rule),
        verdict.rewritten,
        verdict.new_address,
        verdict.new_port,
        verdict.new_name,
        verdict.shadow_denied,
        verdict.shadow_rewritten,
        ref_name(image.index, verdict.shadow_rule),
    )


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
