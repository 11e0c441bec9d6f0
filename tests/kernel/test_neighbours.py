# SPDX-License-Identifier: Apache-2.0
"""Programs of others at, above and below the managed root: found, with their order; who holds a hook is named."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cgnetd.errors import KernelError
from cgnetd.kernel.attach import Attachments
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.conflicts import Clash, find_conflicts, holder
from cgnetd.kernel.features import Features
from cgnetd.kernel.neighbours import Order, Place, Sighting, survey
from cgnetd.kernel.others import cgroup_links, describe, pins
from cgnetd.kernel.programs import Programs
from cgnetd.kernel.store import Store
from pybpf import AttachFlag, AttachType, Link, ProgType, cgroup_attached, effective_programs
from support import libc, sandbox
from support.foreign import Flags, Says, foreign, load
from support.sandbox import PrivateCgroup

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("no_fd_leaks")]
CONNECT4 = AttachType.CGROUP_INET4_CONNECT
HOOK = "connect4"
BUDGET_S = 30.0
_NEW_MOUNTS = 0x00020000
_PRIVATE_ALL = (1 << 18) | (1 << 14)


@pytest.fixture
def tree(private_cgroup: PrivateCgroup) -> PrivateCgroup:
    """The managed root: there is a cgroup above it that is the test's too, and /app below it."""
    made = private_cgroup.child("managed")
    made.child("app")
    return made


@pytest.fixture
def root(tree: PrivateCgroup) -> Iterator[CgroupRoot]:
    with CgroupRoot(tree.path) as found:
        yield found


@pytest.fixture
def links(bpffs: Path, root: CgroupRoot, kernel_features: Features, objects: Path) -> Iterator[Attachments]:
    """Ours, nothing attached yet; afterwards all are gone."""
    with ExitStack() as made:
        store = made.enter_context(Store.open(bpffs / "cgnetd", root, create=True))
        programs = made.enter_context(Programs(store, kernel_features, objects))
        attachments = made.enter_context(Attachments(store, root, programs))
        made.callback(lambda: attachments.detach(attachments.pinned()))
        yield attachments


def find(root: CgroupRoot, links: Attachments, *prog_ids: int) -> list[Sighting]:
    """How a survey saw these programs."""
    found = survey(root, links.attached(), budget_s=BUDGET_S)
    assert found.complete
    return [next(each for each in found.sightings if each.prog_id == prog_id) for prog_id in prog_ids]


@contextmanager
def told_where_lacking(what: str) -> Iterator[None]:
    """Skips where the kernel does not know a flag."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip(f"kernel without {what}")


def running(path: Path) -> tuple[int, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return effective_programs(fd, CONNECT4)
    finally:
        os.close(fd)


def local(path: Path) -> tuple[tuple[int, ...], AttachFlag]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = cgroup_attached(fd, CONNECT4)
        return found.prog_ids, found.flags
    finally:
        os.close(fd)


def test_order_is_told_of_those_before_and_after_in_the_same_cgroup(root: CgroupRoot, links: Attachments) -> None:
    with foreign(root.path, Says.ALLOW) as first, ExitStack() as later:
        links.attach([HOOK])
        second = later.enter_context(foreign(root.path, Says.ALLOW, flags=Flags.MULTI))
        third = later.enter_context(foreign(root.path, Says.ALLOW))
        seen = find(root, links, first, second, third)
        assert [each.order for each in seen] == [Order.BEFORE, Order.AFTER, Order.AFTER]
        assert {(each.seat.name, each.place, each.cgroup) for each in seen} == {(HOOK, Place.ROOT, "/")}
        assert running(root.path) == (first, links.attached()[HOOK], second, third)


def test_order_is_told_of_those_above_and_below(
    root: CgroupRoot, links: Attachments, private_cgroup: PrivateCgroup
) -> None:
    links.attach([HOOK])
    with (
        foreign(private_cgroup.path, Says.ALLOW, flags=Flags.MULTI) as above,
        foreign(root.path / "app", Says.ALLOW, flags=Flags.MULTI) as below,
    ):
        seen_above, seen_below = find(root, links, above, below)
        assert (seen_above.place, seen_above.order, seen_above.cgroup) == (
            Place.ABOVE,
            Order.AFTER,
            str(private_cgroup.path),
        )
        assert (seen_below.place, seen_below.order, seen_below.cgroup) == (Place.BELOW, Order.BEFORE, "/app")
        assert running(root.path / "app") == (below, links.attached()[HOOK], above)


def test_those_that_ask_to_run_first_are_told_as_before(
    root: CgroupRoot, links: Attachments, private_cgroup: PrivateCgroup
) -> None:
    links.attach([HOOK])
    flags = Flags.MULTI | Flags.PREORDER
    with ExitStack() as attached:
        with told_where_lacking("BPF_F_PREORDER (Linux 6.15)"):
            above = attached.enter_context(foreign(private_cgroup.path, Says.ALLOW, flags=flags))
        here = attached.enter_context(foreign(root.path, Says.ALLOW, flags=flags))
        assert [each.order for each in find(root, links, above, here)] == [Order.BEFORE, Order.BEFORE]
        assert running(root.path) == (above, here, links.attached()[HOOK])


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.OVERRIDE])
def test_those_who_want_to_be_alone_below_do_not_displace_ours(
    root: CgroupRoot, links: Attachments, flags: Flags
) -> None:
    links.attach([HOOK])
    with foreign(root.path / "app", Says.ALLOW, flags=flags) as below:
        assert running(root.path / "app") == (below, links.attached()[HOOK])
        (seen,) = find(root, links, below)
        assert (seen.order, seen.flags) == (Order.BEFORE, AttachFlag(flags))
        assert find_conflicts(root, links.attached(), [HOOK]) == ()


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.OVERRIDE])
def test_those_who_want_to_be_alone_are_kept_from_our_root(root: CgroupRoot, links: Attachments, flags: Flags) -> None:
    links.attach([HOOK])
    with pytest.raises(PermissionError), foreign(root.path, Says.ALLOW, flags=flags):
        pass
    assert running(root.path) == (links.attached()[HOOK],)


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.OVERRIDE])
def test_hook_that_is_held_at_the_root_is_not_taken_and_its_holder_named(
    root: CgroupRoot, links: Attachments, flags: Flags
) -> None:
    with foreign(root.path, Says.DENY, name="lonely", flags=flags) as held:
        with pytest.raises(KernelError, match=f"hook {HOOK} cannot be attached .* program {held} lonely") as raised:
            links.attach([HOOK])
        assert f"bpftool cgroup detach {root.path} {HOOK} id {held}" in str(raised.value)
        assert local(root.path) == ((held,), AttachFlag(flags))
        (conflict,) = find_conflicts(root, links.attached(), [HOOK, "connect6"])
        assert (conflict.clash, conflict.other.prog_id, conflict.cgroup) == (Clash.HELD, held, str(root.path))
    links.attach([HOOK])
    assert find_conflicts(root, links.attached(), [HOOK]) == ()


def test_hook_that_is_held_above_is_not_taken_and_its_holder_named(
    root: CgroupRoot, links: Attachments, private_cgroup: PrivateCgroup
) -> None:
    with foreign(private_cgroup.path, Says.ALLOW, name="lonely", flags=Flags.NONE) as held:
        with pytest.raises(KernelError, match=f"program {held} lonely .* to {private_cgroup.path} and lets"):
            links.attach([HOOK])
        assert running(root.path) == (held,)
    links.attach([HOOK])


def test_nobody_holds_a_hook_that_shares_or_gives_way(
    root: CgroupRoot, links: Attachments, private_cgroup: PrivateCgroup
) -> None:
    shared = private_cgroup.child("managed/app")
    with (
        foreign(private_cgroup.path, Says.ALLOW, flags=Flags.OVERRIDE),
        foreign(shared.path, Says.ALLOW, flags=Flags.MULTI),
    ):
        assert holder(root, HOOK) is None
        links.attach([HOOK])


def test_one_further_above_holds_nothing_where_a_nearer_one_shares(root: CgroupRoot, tree: PrivateCgroup) -> None:
    with (
        CgroupRoot(tree.child("app").path) as lower,
        foreign(tree.path, Says.ALLOW, flags=Flags.MULTI),
        foreign(tree.path.parent, Says.ALLOW, flags=Flags.NONE),
    ):
        assert holder(lower, HOOK) is None
        assert holder(root, HOOK) is not None
        with foreign(lower.path, Says.ALLOW):
            pass


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.OVERRIDE])
def test_one_above_that_ours_displace_is_told(
    root: CgroupRoot, links: Attachments, private_cgroup: PrivateCgroup, flags: Flags
) -> None:
    links.attach([HOOK])
    with foreign(private_cgroup.path, Says.DENY, flags=flags) as above:
        assert running(root.path) == (links.attached()[HOOK],)
        (seen,) = find(root, links, above)
        assert seen.order is Order.DISPLACED
        (conflict,) = find_conflicts(root, links.attached(), [HOOK])
        assert (conflict.clash, conflict.other.prog_id) == (Clash.DISPLACED, above)
        assert str(private_cgroup.path) in conflict.text
        links.detach([HOOK])
        assert running(root.path) == (above,)


def test_later_ones_at_the_root_and_above_are_a_conflict_and_earlier_ones_are_not(
    root: CgroupRoot, links: Attachments, private_cgroup: PrivateCgroup
) -> None:
    with foreign(root.path, Says.ALLOW):
        links.attach([HOOK])
        with foreign(root.path, Says.PARDON, name="pardon") as here, foreign(private_cgroup.path, Says.ALLOW) as above:
            found = find_conflicts(root, links.attached(), [HOOK, "cgroup_mkdir"])
            assert [(each.clash, each.other.prog_id) for each in found] == [
                (Clash.OVERRULED, here),
                (Clash.OVERRULED, above),
            ]
            assert f"program {here} pardon" in found[0].text
        assert find_conflicts(root, links.attached(), [HOOK]) == ()


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.MULTI])
def test_one_above_is_seen_from_a_cgroup_namespace_too(
    private_cgroup: PrivateCgroup, tree: PrivateCgroup, tmp_path: Path, flags: Flags
) -> None:
    """Which cgroup it is cannot be told; that it runs, and in which order, can."""

    def inside() -> tuple[Sighting, str]:
        libc.unshare(libc.CLONE_NEWCGROUP | _NEW_MOUNTS)
        sandbox.mount("none", Path("/"), "none", _PRIVATE_ALL)
        sandbox.mount("cgroup2", tmp_path, "cgroup2")
        with CgroupRoot(tmp_path) as root:
            seen = next(each for each in survey(root, {}, budget_s=BUDGET_S).sightings if each.prog_id == above)
            found = holder(root, HOOK)
            return seen, found.text if found else ""

    with foreign(private_cgroup.path, Says.ALLOW, name="lonely", flags=flags) as above:
        seen, text = tree.call(inside)
    assert (seen.place, seen.cgroup, seen.flags_text, seen.order) == (Place.ABOVE, "", "", Order.APART)
    assert f"program {above} lonely" in text
    assert "a cgroup above, out of sight" in text
    assert "bpftool" not in text


def test_hooks_without_ours_are_surveyed_too(root: CgroupRoot, links: Attachments) -> None:
    app = root.path / "app"
    kind, attach_type = ProgType.CGROUP_SKB, AttachType.CGROUP_INET_EGRESS
    with foreign(app, Says.ALLOW, name="sd_fw_egress", flags=Flags.MULTI, attach_type=attach_type, kind=kind) as other:
        (seen,) = find(root, links, other)
        assert (seen.seat.name, seen.order, seen.cgroup) == ("egress", Order.APART, "/app")
        assert "IPAddress" in describe(other).owner


def test_program_is_described_by_what_the_kernel_tells(bpffs: Path, root: CgroupRoot) -> None:
    with load(Says.ALLOW, "somebody", CONNECT4) as program, Link.attach_cgroup(program, root.fd, CONNECT4) as link:
        found = describe(program.info.id)
        assert (found.name, found.type, found.uid) == ("somebody", "cgroup_sock_addr", os.geteuid())
        assert found.tag == program.info.tag.hex()
        assert cgroup_links()[root.id, CONNECT4, program.info.id] == link.info().id
        assert pins(frozenset({program.info.id})) == {}
        link.pin(bpffs / "theirs")
        assert pins(frozenset({program.info.id})) == {program.info.id: str(bpffs / "theirs")}
        prog_id = program.info.id
    (bpffs / "theirs").unlink()
    assert describe(prog_id).name in ("", "somebody")  # the kernel frees it when it likes


def test_survey_that_runs_out_of_time_says_so(root: CgroupRoot, links: Attachments) -> None:
    for number in range(50):
        (root.path / f"app/{number}").mkdir()
    with foreign(root.path, Says.ALLOW) as here, foreign(root.path / "app", Says.ALLOW):
        found = survey(root, links.attached(), budget_s=0.0)
        assert not found.complete
        assert found.cgroups < 52
        assert here in {each.prog_id for each in found.sightings}, "the root is always seen"
        assert survey(root, links.attached(), budget_s=BUDGET_S).cgroups == 52
