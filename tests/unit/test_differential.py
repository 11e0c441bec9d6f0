# SPDX-License-Identifier: Apache-2.0
"""The compiled image says what the reference semantics say: random policies, calls and trees of cgroups."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from random import Random

from drawn_policies import NAMES, flow, policy_sets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import MAPPED, ImageReader, Verdict
from cgnetd.datapath.label import Label, child_label, root_label
from cgnetd.policy.evaluate import evaluate, judge
from cgnetd.policy.matching import section_of
from cgnetd.policy.select import select
from cgnetd.policy.types import Action, Decision, Endpoint, Flow, Hook, Outcome, PolicySet, Service

SETS = int(os.environ.get("CGNETD_DIFFERENTIAL_SETS", "100"))
FLOWS_A_SET = 100


def label_of(reader: ImageReader, path: tuple[str, ...]) -> Label:
    label = root_label(reader)
    for name in path:
        label = child_label(reader, label, os.fsencode(name))
    return label


class Alive:
    """The backends that are alive, by one choice for each family of each service; `None`: all are dead."""

    def __init__(self, policy_set: PolicySet, random: Random) -> None:
        self._services = policy_set.services
        self._chosen: dict[tuple[int, int], int | None] = {
            (number, family): random.choice([None, *range(len(self._backends(service, family)))])
            for number, service in enumerate(policy_set.services)
            for family in (4, 6)
        }

    @staticmethod
    def _backends(service: Service, family: int) -> list[Endpoint]:
        return [backend.endpoint for backend in service.backends if backend.endpoint.family == family]

    def number(self, service_id: int, family: int) -> int | None:
        return self._chosen[service_id, family]

    def endpoint(self, service: Service, family: int) -> Endpoint | None:
        number = self._chosen[self._services.index(service), family]
        return None if number is None else self._backends(service, family)[number]


def expected(decision: Decision, call: Flow, image: Image) -> Verdict:
    """A reference decision in the image's terms."""
    ids = {(ref.policy, ref.section, ref.rule): ref.rule_id for ref in image.index.refs}
    section = section_of(call).value

    def rule_id(outcome: Outcome) -> int:
        if outcome.policy is None:
            return 0
        name = outcome.rule.name if outcome.rule else f"default.{section}"
        return ids[(outcome.policy.name, section, name)]

    enforced, shadow = decision.enforced, decision.shadow
    target = enforced.target if enforced.action.rewrites else None
    address = target.address if target else 0
    redirect = enforced.rule.redirect if enforced.rule and enforced.action is Action.DENY else None
    no_backend = redirect is not None and redirect.service is not None and call.hook is not Hook.SOCKET
    return Verdict(
        denied=enforced.action is Action.DENY,
        errno=enforced.errno,
        rule_id=rule_id(enforced),
        shadow_rule_id=rule_id(shadow),
        shadow_denied=shadow.action is Action.DENY,
        by_socket=False,
        rewritten=enforced.action.rewrites,
        new_address=address | MAPPED if target and target.family != call.family else address,
        new_port=target.port if target else 0,
        reason=abi.REASON_NO_BACKEND if no_backend else abi.REASON_NONE,
        shadow_rewritten=shadow.action.rewrites,
    )


TREE_PATHS = st.lists(st.sampled_from(NAMES) | st.text("ab.1@éx", min_size=1, max_size=5), max_size=5).map(tuple)


@settings(max_examples=SETS, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    policy_sets(),
    st.sampled_from([Action.ALLOW, Action.DENY]),
    TREE_PATHS,
    TREE_PATHS,
    st.randoms(use_true_random=False),
)
def test_the_image_judges_as_the_reference_does(
    policy_set: PolicySet, default_action: Action, task: tuple[str, ...], socket: tuple[str, ...], random: Random
) -> None:
    image = compile_image(policy_set, default_action=default_action, generation=1)
    reader = ImageReader(image.cells)
    chains = [select(policy_set, path) for path in (task, socket)]
    labels = [label_of(reader, path) for path in (task, socket)]
    seeded = Random(random.getrandbits(32))
    alive = Alive(policy_set, seeded)
    for _ in range(FLOWS_A_SET):
        call = flow(policy_set, seeded)
        verdict = reader.judge(labels[0], labels[1], call, alive.number)
        reference = expected(judge(chains[0], chains[1], call, default_action, alive.endpoint), call, image)
        assert replace(verdict, by_socket=False) == reference, call
        told = [(step.policy_id, step.action, step.audit) for step in reader.explain(labels[0], call, alive.number)]
        walked = evaluate(chains[0], call, default_action, alive.endpoint).steps
        assert told == [(policy_set.policies.index(s.policy), s.action, s.audit) for s in walked], call


def test_drawn_calls_meet_everything_that_can_become_of_one() -> None:
    """What the comparison above is worth: the outcomes that it meets."""
    random, met = Random(1), Counter[str]()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(policy_sets())
    def draw(policy_set: PolicySet) -> None:
        chain, alive = policy_set.policies, Alive(policy_set, random)
        for _ in range(FLOWS_A_SET):
            call = flow(policy_set, random)
            decision = evaluate(chain, call, Action.ALLOW, alive.endpoint)
            met[f"{call.hook.value} {decision.enforced.action.value}"] += 1
            if call.family == 1:
                met[f"unix {decision.enforced.action.value}"] += 1
            last = decision.steps[-1]
            if decision.enforced.action is Action.DENY and last.action.rewrites:
                met["redirect denied at its target or without backend"] += 1
            met["shadow redirect"] += decision.shadow.action.rewrites and not decision.enforced.action.rewrites

    draw()
    needed = {f"{hook} {action}" for hook in ("connect", "sendmsg") for action in ("allow", "deny", "redirect")}
    needed |= {"bind rewrite", "unix redirect", "unix deny", "create deny", "post_bind allow", "shadow redirect"}
    needed.add("redirect denied at its target or without backend")
    assert {name for name in needed if met[name] < 5} == set()


@settings(max_examples=SETS, deadline=None, suppress_health_check=list(HealthCheck))
@given(policy_sets(with_rules=False, max_size=12), st.lists(TREE_PATHS, min_size=20, max_size=20))
def test_labels_hold_the_chains_that_the_reference_selects(policy_set: PolicySet, paths: list[tuple[str, ...]]) -> None:
    image = compile_image(policy_set, default_action=Action.ALLOW, generation=1)
    reader = ImageReader(image.cells)
    for path in paths:
        label = label_of(reader, path)
        assert not label.overflow
        names = tuple(image.index.policies[policy_id].name for policy_id in label.policies)
        assert names == tuple(policy.name for policy in select(policy_set, path)), path
