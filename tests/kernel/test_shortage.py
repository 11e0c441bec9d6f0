# SPDX-License-Identifier: Apache-2.0
"""A swap that fails half way changes nothing, wherever the kernel refuses one more object.

The kernel refuses for want of descriptors, one fewer missing each time, so that every step that makes an object fails
once. Whatever a pass made before that must not be in force, nor be in the way of the next one.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import pytest

from cgnetd.service.reconcile import Reconciler
from cgnetd.service.session import OBJECT_DIR_VARIABLE, Surroundings
from cgnetd.service.settings import Settings
from support.governed import OPEN, SHUT, connect, policy
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

MOST = 40  # descriptors that a pass can need at once


@contextmanager
def spare_descriptors(number: int) -> Iterator[None]:
    """No more than so many can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir("/proc/self/fd")}
    free = (fd for fd in count() if fd not in used)
    limit = next(islice(free, number, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def policy_dir(tmp_path: Path) -> Path:
    made = tmp_path / "policy.d"
    made.mkdir()
    return made


@pytest.fixture
def reconciler(
    policy_dir: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reconciler]:
    monkeypatch.setenv(OBJECT_DIR_VARIABLE, str(objects))
    settings = Settings(policy_dirs=(str(policy_dir),), pin_dir=str(pin_dir), cgroup_root=str(private_cgroup.path))
    made = Reconciler(settings, Surroundings.find(settings))
    try:
        yield made
    finally:
        made.flush()
        made.close()


def test_swap_that_fails_anywhere_changes_nothing(
    reconciler: Reconciler, policy_dir: Path, private_cgroup: PrivateCgroup
) -> None:
    app = private_cgroup.child("app")
    (policy_dir / "app.yaml").write_text(policy(allowed=OPEN))
    assert reconciler.look().loaded
    (policy_dir / "app.yaml").write_text(policy(allowed=SHUT))
    failures = set()
    for spare in range(MOST):
        before = reconciler.running
        with spare_descriptors(spare):
            report = reconciler.look(force=True)
        if report.loaded:
            break
        failures.add(str(report.error or report.problems[0].message))
        assert reconciler.running is before
        assert (connect(app, OPEN) == 0, connect(app, SHUT) == 0) == (True, False)
    assert report.loaded
    assert (connect(app, OPEN) == 0, connect(app, SHUT) == 0) == (False, True)
    assert len(failures) >= 3
    (policy_dir / "app.yaml").write_text(policy(allowed=OPEN))
    assert reconciler.look(force=True).loaded
    assert connect(app, OPEN) == 0


def test_pass_that_can_see_only_half_takes_nothing_for_drift(
    reconciler: Reconciler, policy_dir: Path, private_cgroup: PrivateCgroup
) -> None:
    app = private_cgroup.child("app")
    (policy_dir / "app.yaml").write_text(policy(allowed=OPEN))
    number = reconciler.look().loaded
    reconciler.look()
    troubles = set()
    for spare in range(MOST):
        with spare_descriptors(spare):
            report = reconciler.look(closely=True)
        assert (report.loaded, report.repaired) == (0, ())
        if report.error is None and not report.problems:
            break
        troubles.add(str(report.error or report.problems[0].message))
        assert (connect(app, OPEN) == 0, connect(app, SHUT) == 0) == (True, False)
    assert (report.error, report.problems) == (None, ())
    assert len(troubles) >= 2
    assert reconciler.running is not None
    assert reconciler.running.number == number
