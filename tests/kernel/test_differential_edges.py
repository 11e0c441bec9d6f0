# SPDX-License-Identifier: Apache-2.0
"""The kernel says what `evaluate` says, at the edges of what rules name and in tables of every shape and size.

A pair is a policy set and a call. `make differential PAIRS=1000000` runs that many, in whole sheets;
CGNETD_DIFFERENTIAL_SEED=SEED draws what the run drew that told this seed, SEED/SHEET from this sheet on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random

import pytest

from cgnetd.datapath.label import Label
from cgnetd.kernel import features
from cgnetd.policy.evaluate import judge
from support.agreement import FIRST_ID, compiled, in_words, private_enforcement, put_in_force, told
from support.aimed_calls import AimedCall, aimed_calls
from support.aimed_policies import KINDS, Sheet, aimed_sheet
from support.enforce import Enforcement
from support.verdict_program import Asked, VerdictProgram

PAIRS = int(os.environ.get("CGNETD_DIFFERENTIAL_PAIRS", "36000"))
SEED = os.environ.get("CGNETD_DIFFERENTIAL_SEED", "")
CALLS_A_SHEET = 1000


@pytest.fixture(scope="module")
def enforcement(objects: Path) -> Iterator[Enforcement]:
    with private_enforcement(objects) as made:
        yield made


@pytest.fixture(scope="module")
def program(enforcement: Enforcement, objects: Path) -> Iterator[VerdictProgram]:
    with VerdictProgram(enforcement.store, features.probe(), objects) as made:
        yield made


def test_kernel_agrees_with_reference_at_the_edges_of_rules(
    enforcement: Enforcement, program: VerdictProgram, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, _, first = SEED.partition("/")
    seed = seed or str(Random().getrandbits(32))
    kinds, done = list(KINDS), 0
    for number in count(int(first or 0)):
        source = Random(f"{seed}/{number}")
        sheet = aimed_sheet(source, kinds[number % len(kinds)])
        calls = list(aimed_calls(source, sheet, CALLS_A_SHEET))
        compare(enforcement, program, sheet, calls, f"{seed}/{number}")
        done += len(calls)
        with capsys.disabled():
            show_progress(done, f"{seed}/{number}")
        if done >= PAIRS:
            break


def compare(
    enforcement: Enforcement, program: VerdictProgram, sheet: Sheet, calls: Sequence[AimedCall], place: str
) -> None:
    image = compiled(sheet.policies, sheet.default)
    put_in_force(enforcement, image, {FIRST_ID + n: Label(0, chain) for n, chain in enumerate(sheet.chains)})
    for call, answer in zip(calls, program.ask([asked(call) for call in calls]), strict=True):
        socket_chain = None if call.socket in (None, call.task) else sheet.chain(call.socket)
        decision = judge(sheet.chain(call.task), socket_chain, call.flow, sheet.default)
        assert told(image, answer) == in_words(decision, call.flow), (
            f"{call} of {sheet.kind}, chains {sheet.chains}; again: CGNETD_DIFFERENTIAL_SEED={place}"
        )


def asked(call: AimedCall) -> Asked:
    return Asked(call.flow, FIRST_ID + call.task, 0 if call.socket is None else FIRST_ID + call.socket)


def show_progress(done: int, place: str) -> None:
    if sys.stderr.isatty():
        end = "\r" if done < PAIRS else "\n"
        print(f"\r{done:,} of {PAIRS:,} pairs, seed {place}", end=end, file=sys.stderr, flush=True)
