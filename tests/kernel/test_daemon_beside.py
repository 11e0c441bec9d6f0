# SPDX-License-Identifier: Apache-2.0
"""The daemon beside programs of others: nobody is detached whatever it does, both verdicts hold, conflicts are told."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pybpf import AttachType, Link, cgroup_attached, effective_programs
from support.foreign import Flags, Says, foreign
from support.governed import OPEN, SHUT, Governed, connect, eventually, governed, policy
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.kernel
CONNECT4 = AttachType.CGROUP_INET4_CONNECT
DENIED = errno.EHOSTUNREACH


@pytest.fixture
def stopped(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    """Not started: its root has a cgroup above it that is the test's too."""
    with governed(tmp_path, private_cgroup.child("managed"), pin_dir, objects) as found:
        yield found


@pytest.fixture
def app(stopped: Governed) -> Governed:
    start(stopped)
    return stopped


def start(app: Governed) -> None:
    app.start("--set", "limits.reconcile_interval=200ms")


def ids(path: Path, *, effective: bool = False) -> tuple[int, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return effective_programs(fd, CONNECT4) if effective else cgroup_attached(fd, CONNECT4).prog_ids
    finally:
        os.close(fd)


def verdicts(app: Governed) -> tuple[int, int]:
    return connect(app.app, OPEN), connect(app.app, SHUT)


def rows(app: Governed) -> dict[int, dict[str, Any]]:
    """What `status` says of the programs of others at connect4, by id."""

    def neighbours() -> dict[str, Any]:
        found: dict[str, Any] = app.daemon.ask("status")["neighbours"]
        assert found["error"] == ""
        return found if found["complete"] else {}  # one that is kept from its CPU does not get through the tree

    found = eventually(neighbours, "a whole look at the neighbours")
    return {row["prog_id"]: row for row in found["programs"] if row["hook"] == "connect4"}


def conflicts(app: Governed) -> list[tuple[str, int]]:
    found = app.daemon.ask("status")["conflicts"]
    return [(each["kind"], each["prog_id"]) for each in found if each["hook"] == "connect4"]


def repair(app: Governed) -> None:
    """Have our link detached, and attached again."""
    with Link.from_pin(app.pin_dir / "links/connect4") as link:
        link.detach()
    app.await_record("drift-repaired")


def reload(app: Governed) -> None:
    app.daemon.write_policy("app.yaml", policy(SHUT))
    app.daemon.ask("reload")
    app.daemon.write_policy("app.yaml", policy())
    app.daemon.ask("reload")


def restart(app: Governed) -> None:
    app.daemon.stop()
    start(app)


def test_others_stay_where_they_are_whatever_is_done(stopped: Governed) -> None:
    """Before and after ours, with and without a link, at, above and below our root."""
    root, above = stopped.tree.path, stopped.tree.path.parent
    with ExitStack() as attached:
        before = (
            attached.enter_context(foreign(root, Says.ALLOW, flags=Flags.MULTI)),
            attached.enter_context(foreign(root, Says.ALLOW)),
        )
        over = attached.enter_context(foreign(above, Says.ALLOW))
        start(stopped)
        ours = ids(root)[-1]
        after = (
            attached.enter_context(foreign(root, Says.ALLOW)),
            attached.enter_context(foreign(root, Says.ALLOW, flags=Flags.MULTI)),
        )
        alone = attached.enter_context(foreign(stopped.app.path, Says.ALLOW, flags=Flags.NONE))
        assert ids(stopped.app.path, effective=True) == (alone, *before, ours, *after, over)
        orders = {prog_id: row["order"] for prog_id, row in rows(stopped).items()}
        assert orders == {
            **dict.fromkeys((alone, *before), "before"),
            **dict.fromkeys((*after, over), "after"),
        }
        for act in (reload, restart, repair):
            act(stopped)
            assert verdicts(stopped) == (0, DENIED), act.__name__
            expected = (*before, *after, ids(root)[-1]) if act is repair else (*before, ours, *after)
            assert ids(root) == expected, act.__name__
            assert (ids(stopped.app.path), ids(above)) == ((alone,), (over,)), act.__name__
            assert set(rows(stopped)) == {alone, *before, *after, over}, act.__name__
        stopped.daemon.ask("flush")
        assert ids(stopped.app.path, effective=True) == (alone, *before, *after, over)
        assert {row["order"] for row in rows(stopped).values()} == {"apart"}


@pytest.mark.parametrize("flags", [None, *Flags], ids=lambda flags: flags.name if flags is not None else "link")
@pytest.mark.parametrize("place", ["app", "."])
def test_either_can_deny(app: Governed, flags: Flags | None, place: str) -> None:
    """Without a link, theirs is alone in its cgroup, may be replaced from below, or shares."""
    if place == "." and flags in (Flags.NONE, Flags.OVERRIDE):
        with pytest.raises(PermissionError), foreign(app.tree.path, Says.DENY, flags=flags):
            pass
        return
    given = Flags.MULTI | Flags.PREORDER if flags is Flags.PREORDER else flags
    with foreign(app.tree.path / place, Says.ALLOW, flags=given):
        assert verdicts(app) == (0, DENIED)
    with foreign(app.tree.path / place, Says.DENY, flags=given):
        assert connect(app.app, OPEN) == errno.EPERM
        assert connect(app.app, SHUT) in (errno.EPERM, DENIED), "whoever denies first says how"
    assert verdicts(app) == (0, DENIED)


def test_one_that_runs_before_ours_cannot_pardon(app: Governed) -> None:
    with foreign(app.app.path, Says.PARDON, flags=Flags.MULTI):
        assert verdicts(app) == (0, DENIED)
        assert conflicts(app) == []


def test_one_that_runs_after_ours_is_told_as_a_conflict_until_it_goes(app: Governed) -> None:
    with foreign(app.tree.path, Says.PARDON, name="pardon") as later:
        assert connect(app.app, SHUT) == 0, "the kernel lets the last one decide"
        assert conflicts(app) == [("overruled", later)]
        assert f"program {later} pardon" in app.await_record("conflict")["message"]
        assert app.daemon.ask("status")["enforcing"]
    assert f"program {later} pardon" in app.await_record("conflict-ended")["message"]
    assert conflicts(app) == []
    assert verdicts(app) == (0, DENIED)
    assert len(app.records("conflict")) == 1


@pytest.mark.parametrize("place", ["root", "above"])
def test_held_hook_is_waited_for_and_told(stopped: Governed, place: str) -> None:
    path = stopped.tree.path if place == "root" else stopped.tree.path.parent
    with foreign(path, Says.ALLOW, name="lonely", flags=Flags.NONE) as holder:
        start(stopped)
        status = stopped.daemon.ask("status")
        assert not status["enforcing"]
        assert any(f"program {holder} lonely" in reason for reason in status["reasons"])
        assert conflicts(stopped) == [("held", holder)]
        assert str(path) in stopped.await_record("conflict")["message"]
        assert ids(path) == (holder,)
        assert verdicts(stopped) == (0, 0)
    eventually(lambda: stopped.daemon.ask("status")["enforcing"], "enforcement when the hook is let go")
    assert verdicts(stopped) == (0, DENIED)
    stopped.await_record("conflict-ended")


def test_new_generation_that_needs_a_held_hook_is_not_put_in_force(stopped: Governed) -> None:
    """What was in force is not weakened."""
    bind = AttachType.CGROUP_INET4_BIND
    with foreign(stopped.tree.path, Says.ALLOW, name="lonely", flags=Flags.NONE, attach_type=bind) as holder:
        start(stopped)
        assert verdicts(stopped) == (0, DENIED)
        before = stopped.daemon.ask("status")["generation"]
        text = policy(SHUT) + "  bind:\n    - {name: none, action: deny}\n"
        stopped.daemon.write_policy("app.yaml", text)
        told = stopped.await_record("conflict")
        assert f"hook bind4 cannot be attached to {stopped.tree.path}: program {holder} lonely" in told["message"]
        status = stopped.daemon.ask("status")
        assert (status["enforcing"], status["generation"]) == (True, before)
        assert verdicts(stopped) == (0, DENIED)
    eventually(lambda: stopped.daemon.ask("status")["generation"] > before, "the new generation")
    assert verdicts(stopped) == (DENIED, 0)


def test_hook_taken_while_ours_was_off_is_told_and_not_taken_back(app: Governed) -> None:
    """Somebody detaches ours and takes the hook for itself: it is named, and left there."""
    with Link.from_pin(app.pin_dir / "links/connect4") as link, ExitStack() as attached:
        app.daemon.signal(19)  # SIGSTOP: or else it is faster
        link.detach()
        holder = attached.enter_context(foreign(app.tree.path, Says.ALLOW, name="taker", flags=Flags.NONE))
        app.daemon.signal(18)
        assert f"program {holder} taker" in app.await_record("conflict")["message"]
        status = app.daemon.ask("status")
        assert not status["enforcing"]
        assert "hook connect4: detached" in status["reasons"]
        assert ids(app.tree.path) == (holder,)
    eventually(lambda: app.daemon.ask("status")["enforcing"], "enforcement when the hook is let go")
    assert verdicts(app) == (0, DENIED)
