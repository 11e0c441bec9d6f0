# SPDX-License-Identifier: Apache-2.0
"""What the reference semantics and the kernel say of one call, in words that can be compared; generations to ask.

Labels are put on cgroup ids that no cgroup here has. Must not know how policies or calls are drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.datapath.interpret import Verdict as ImageVerdict
from cgnetd.datapath.label import Label, pack_entry, pack_label
from cgnetd.datapath.live import Alive
from cgnetd.policy.matching import section_of
from cgnetd.policy.types import Action, Decision, Flow, Outcome, PolicySet
from support import sandbox
from support.enforce import Enforcement
from support.judge import ref_name
from support.verdict_program import Verdict

FIRST_ID = 1 << 40  # ids that no cgroup here has
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


@contextmanager
def private_enforcement(objects: Path) -> Iterator[Enforcement]:
    """Maps and programs of a private root, with nothing attached."""
    with (
        sandbox.cgroup() as cgroup,
        sandbox.bpffs_mount() as bpffs,
        Enforcement(cgroup.path, bpffs / "cgnetd", objects) as made,
    ):
        yield made


def compiled(policies: PolicySet, default: Action) -> Image:
    """Each is a generation of its own."""
    return compile_image(policies, default_action=default, generation=next(_generations))


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


def told_by_image(image: Image, verdict: ImageVerdict) -> Told:
    """The same of a verdict by the image, not on UNIX sockets."""
    return Told(
        verdict.errno,
        ref_name(image.index, verdict.rule_id),
        verdict.rewritten,
        verdict.new_address,
        verdict.new_port,
        b"",
        verdict.shadow_denied,
        verdict.shadow_rewritten,
        ref_name(image.index, verdict.shadow_rule_id),
    )
