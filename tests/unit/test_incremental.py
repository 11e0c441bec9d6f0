# SPDX-License-Identifier: Apache-2.0
"""Whatever is edited, a source that remembers asks for exactly what one asks for that reads everything anew."""

from __future__ import annotations

import pwd
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cgnetd.errors import Problem
from cgnetd.policy.types import Action, PolicySet
from cgnetd.service.policy_source import Asked, PolicySource
from support.edits import USERS, EditedDirectory

EDITS = 80


@dataclass
class Seen:
    """A source, and the policy sets that it found."""

    directories: list[str]
    sets: list[PolicySet] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = PolicySource(self.directories, Action.ALLOW, 1 << 20, find_refusals=self._keep)

    def _keep(self, policy_set: PolicySet) -> tuple[Problem, ...]:
        self.sets.append(policy_set)
        return ()


def check(asked: Asked, anew: Asked) -> None:
    """What they ask for is the same to the last cell, or they have the same complaints."""
    assert (asked.problems, asked.set_files) == (anew.problems, anew.set_files)
    assert asked.warnings == anew.warnings
    if anew.problems:
        return
    assert asked.image is not None
    assert anew.image is not None
    assert asked.image.cells == anew.image.cells
    assert asked.image.index == anew.image.index
    assert asked.image.index.to_bytes() == anew.image.index.to_bytes()
    assert (asked.image.digest, asked.image.sizes) == (anew.image.digest, anew.image.sizes)
    assert asked.fingerprints.rules == anew.fingerprints.rules
    assert asked.fingerprints.policies == anew.fingerprints.policies


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Who the users are, as long as the test lasts."""
    uids = dict.fromkeys(USERS, 1000)
    record = pwd.getpwnam("root")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.struct_passwd((name, "x", uids[name], *record[3:])))
    return uids


@pytest.mark.parametrize("settled", [False, True], ids=["young files", "settled files"])
@pytest.mark.parametrize("seed", range(4))
def test_a_source_that_remembers_asks_for_what_one_asks_that_does_not(
    seed: int, settled: bool, tmp_path: Path, users: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if settled:  # files that changed long ago are known by their stamps
        monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + 10**9)
    choice = random.Random(seed)
    directory = EditedDirectory(tmp_path, choice)
    users.update(directory.uids)
    remembering = Seen(directory.directories)
    met: Counter[str] = Counter()
    for _ in range(EDITS):
        directory.edit()
        moved = users != directory.uids
        users.update(directory.uids)
        before = remembering.source.asked
        asked = remembering.source.look(force=moved or choice.random() < 0.3)
        fresh = Seen(directory.directories)
        check(asked, fresh.source.look())
        if asked.problems:
            assert asked.image is before.image
            met["mistakes"] += 1
            if choice.random() < 0.5:
                directory.mend({problem.file for problem in asked.problems})
            continue
        met["sets"] += 1
        policies = remembering.sets[-1]
        assert policies == fresh.sets[-1]
        known = {id(policy) for found in remembering.sets[:-1] for policy in found.policies}
        met["same objects"] += sum(id(policy) in known for policy in policies.policies)
        met["packed"] += any(len(found.ranges.v4) >= 256 for found in policies.sets)
    assert met["sets"] >= EDITS // 3
    assert min(met["mistakes"], met["packed"]) > 0
    assert met["same objects"] > EDITS // 2
