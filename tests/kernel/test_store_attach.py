# SPDX-License-Identifier: Apache-2.0
"""Links: attached, observed, repaired, upgraded, flushed, with the shipped programs."""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgnetd.errors import KernelError, PinError, PrivilegeError
from cgnetd.kernel import features
from cgnetd.kernel.attach import Attachments, LinkState
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.features import Features
from cgnetd.kernel.flush import flush
from cgnetd.kernel.hooks import HOOKS
from cgnetd.kernel.programs import Programs, Signature, signature, use_maps
from cgnetd.kernel.store import Store
from pybpf import AttachType, Link, Map, MapType, Object, Program
from support.sandbox import PrivateCgroup, cgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
TOP = Path(__file__).parent.parent.parent
_FUNCTION = re.compile(r'^(SEC\("[^"]+"\)\nint [^{;]*\{\n)', re.MULTILINE)

Attach = Callable[..., Attachments]


@functools.cache
def ours() -> tuple[str, ...]:
    """The hooks that this kernel has a place for, in the order of attaching."""
    lacking = features.probe().lacking_hooks()
    return tuple(name for name in HOOKS if name not in lacking)


def all_but(**states: LinkState) -> dict[str, LinkState]:
    """Every hook is right but these."""
    return dict.fromkeys(ours(), LinkState.OK) | states


@pytest.fixture
def attach(store: Store, cgroup_root: CgroupRoot, kernel_features: Features, objects: Path) -> Iterator[Attach]:
    """Attachments as a daemon that starts now would make them."""
    with ExitStack() as made:

        def fresh(directory: Path = objects) -> Attachments:
            programs = made.enter_context(Programs(store, kernel_features, directory))
            return made.enter_context(Attachments(store, cgroup_root, programs))

        yield fresh


def states(attachments: Attachments) -> dict[str, LinkState]:
    return {name: seen.state for name, seen in attachments.observe(ours()).items()}


def link_ids(attachments: Attachments) -> dict[str, int]:
    return {name: seen.link_id for name, seen in attachments.observe(ours()).items()}


def test_nothing_is_attached_before(attach: Attach) -> None:
    attachments = attach()
    assert states(attachments) == dict.fromkeys(ours(), LinkState.MISSING)
    assert attachments.pinned() == frozenset()
    assert attachments.detach(ours()) == ()


def test_every_hook_attaches_once(attach: Attach) -> None:
    attachments = attach()
    assert [seen.name for seen in attachments.attach(ours())] == list(ours())
    before = link_ids(attachments)
    assert states(attachments) == all_but()
    assert attachments.attach(ours()) == ()
    assert link_ids(attachments) == before


def test_next_daemon_recognises_its_links(attach: Attach) -> None:
    attach().attach(ours())
    later = attach()
    assert states(later) == all_but()
    assert later.attach(ours()) == ()


def test_only_wanted_hooks_are_attached_and_the_others_go(attach: Attach) -> None:
    attachments = attach()
    attachments.attach(["connect4", "bind4"])
    assert attachments.pinned() == {"connect4", "bind4"}
    assert attachments.detach(name for name in ("bind4", "sendmsg4")) == ("bind4",)
    assert attachments.pinned() == {"connect4"}


@pytest.mark.parametrize("name", ["connect4", "cgroup_mkdir"])
def test_lost_pin_is_attached_again(attach: Attach, store: Store, name: str) -> None:
    attachments = attach()
    attachments.attach(ours())
    (store.pin_dir / "links" / name).unlink()
    later = attach()
    assert states(later) == all_but(**{name: LinkState.MISSING})
    assert [seen.name for seen in later.attach(ours())] == [name]
    assert states(later) == all_but()


@pytest.mark.parametrize("name", ["connect4", "cgroup_mkdir"])
def test_lost_pin_of_a_held_link_detaches_nothing(attach: Attach, store: Store, name: str) -> None:
    attachments = attach()
    attachments.attach(ours())
    before = link_ids(attachments)
    (store.pin_dir / "links" / name).unlink()
    with Link.from_id(before[name]) as link:
        assert link.info().id == before[name]
    assert [seen.name for seen in attachments.attach(ours())] == [name]
    assert link_ids(attachments) == before


def test_detached_link_is_attached_again(attach: Attach, store: Store) -> None:
    attachments = attach()
    attachments.attach(ours())
    with Link.from_pin(store.pin_dir / "links" / "connect4") as link:
        link.detach()
    assert states(attachments) == all_but(connect4=LinkState.DEAD)
    attachments.attach(ours())
    assert states(attachments) == all_but()


def test_program_of_another_hook_in_the_link_is_seen_and_replaced(attach: Attach, store: Store) -> None:
    attachments = attach()
    attachments.attach(ours())
    before = link_ids(attachments)
    with (
        Link.from_pin(store.pin_dir / "links" / "connect4") as link,
        Program.from_id(attachments.observe(["bind4"])["bind4"].prog_id) as program,
    ):
        program.attach_type = AttachType.CGROUP_INET4_CONNECT  # the kernel does not mind
        link.update(program)
    assert states(attachments) == all_but(connect4=LinkState.WRONG_PROGRAM)
    attachments.attach(ours())
    assert states(attachments) == all_but()
    assert link_ids(attachments) == before


def test_links_of_two_hooks_exchanged_are_seen(attach: Attach, store: Store) -> None:
    attachments = attach()
    attachments.attach(ours())
    links = store.pin_dir / "links"
    for one, other in (("connect4", "bind4"), ("cgroup_mkdir", "connect6")):
        (links / one).rename(links / "aside")
        (links / other).rename(links / one)
        (links / "aside").rename(links / other)
    wrong = dict.fromkeys(("connect4", "bind4", "cgroup_mkdir", "connect6"), LinkState.WRONG_HOOK)
    assert states(attachments) == all_but(**wrong)
    attachments.attach(ours())
    assert states(attachments) == all_but()


def test_link_on_another_cgroup_is_seen_and_replaced(
    attach: Attach, store: Store, kernel_features: Features, objects: Path
) -> None:
    attachments = attach()
    attachments.attach(ours())
    (store.pin_dir / "links" / "connect4").unlink()
    with cgroup() as other, CgroupRoot(other.path) as root:
        with Programs(store, kernel_features, objects) as programs:
            Attachments(store, root, programs).attach(["connect4"])
        assert states(attachments) == all_but(connect4=LinkState.WRONG_CGROUP)
        attachments.attach(ours())
    assert states(attachments) == all_but()


def test_other_pin_in_the_place_of_a_link_is_replaced(attach: Attach, store: Store) -> None:
    attachments = attach()
    attachments.attach(ours())
    (store.pin_dir / "links" / "connect4").unlink()
    store.maps["stats"].pin(store.pin_dir / "links" / "connect4")
    assert states(attachments) == all_but(connect4=LinkState.NOT_A_LINK)
    attachments.attach(ours())
    assert states(attachments) == all_but()


@pytest.fixture(scope="module")
def other_objects(tmp_path_factory: pytest.TempPathFactory, clang: str) -> Path:
    """Another build of the programs: each begins with a test that never holds, so that the instructions differ."""
    out = tmp_path_factory.mktemp("other")
    source = shutil.copytree(TOP / "bpf", out / "bpf")
    for path in source.glob("*.bpf.c"):
        path.write_text(_FUNCTION.sub(r"\1\tif (!bpf_ktime_get_ns())\n\t\treturn 1;\n", path.read_text()))
    subprocess.run(["make", "-s", "-C", source, f"OUT={out / 'objects'}", f"CLANG={clang}"], check=True)
    return out / "objects"


def test_programs_of_another_build_are_replaced_in_their_links(
    attach: Attach, other_objects: Path, objects: Path
) -> None:
    before = attach()
    before.attach(ours())
    ids = link_ids(before)
    after = attach(other_objects)
    assert states(after) == dict.fromkeys(ours(), LinkState.WRONG_PROGRAM)
    assert {seen.state for seen in after.attach(ours())} == {LinkState.WRONG_PROGRAM}
    assert states(after) == all_but()
    cgroup_hooks = {name for name in ours() if not HOOKS[name].tracepoint}
    assert {name: link_ids(after)[name] for name in cgroup_hooks} == {name: ids[name] for name in cgroup_hooks}
    back = attach(objects)
    back.attach(ours())
    assert states(back) == all_but()


def test_programs_told_otherwise_are_replaced(
    attach: Attach, store: Store, cgroup_root: CgroupRoot, kernel_features: Features, objects: Path
) -> None:
    poorer = Features(**{name: getattr(kernel_features, name) for name in Features.__slots__} | {"set_retval": False})
    with Programs(store, poorer, objects) as programs:
        Attachments(store, cgroup_root, programs).attach(["connect4"])
    if kernel_features.set_retval:
        assert attach().observe(["connect4"])["connect4"].state is LinkState.WRONG_PROGRAM
    else:
        assert attach().observe(["connect4"])["connect4"].ok


def test_map_of_one_object_alone_makes_no_other_program(store: Store, objects: Path, kernel_features: Features) -> None:
    if not kernel_features.sock_destroy:
        pytest.skip(features.COSTS["sock_destroy"])

    def load() -> tuple[Signature, frozenset[int]]:
        path = objects / "destroy.bpf.o"
        with Object(path) as opened:
            use_maps(opened, path, store)
            opened.load()
            with opened.programs["iter_udp"].open() as program:
                return signature(program), frozenset(program.info.map_ids)

    (one, one_maps), (other, other_maps) = load(), load()
    assert one == other
    assert one.map_ids == {store.maps["peers"].info.id}
    assert one_maps != other_maps


def test_lost_maps_are_found_again_through_the_attached_programs(
    attach: Attach, store: Store, cgroup_root: CgroupRoot
) -> None:
    attach().attach(ours())
    before = store.maps["labels"].info.id
    shutil.rmtree(store.pin_dir / "maps")
    (store.pin_dir / "meta").unlink()
    with Store.open(store.pin_dir, cgroup_root, create=True) as again:
        assert again.maps["labels"].info.id == before
        assert again.control() == store.control()


def test_link_that_was_not_put_in_place_goes_with_the_next_start(
    attach: Attach, store: Store, cgroup_root: CgroupRoot
) -> None:
    attachments = attach()
    attachments.attach(ours())
    links = store.pin_dir / "links"
    (links / "connect4").rename(links / "new_connect4")
    attachments.attach(["bind4"])
    assert (links / "new_connect4").exists()
    with Store.open(store.pin_dir, cgroup_root, create=True):
        assert {path.name for path in links.iterdir()} == set(ours()) - {"connect4"}


def test_missing_object_names_the_file(attach: Attach, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=rf"load programs connect4: {tmp_path}/connect\.bpf\.o is missing"):
        attach(tmp_path).attach(["connect4"])


def test_object_of_other_programs_is_refused(attach: Attach, tmp_path: Path, objects: Path) -> None:
    shutil.copy(objects / "bind.bpf.o", tmp_path / "connect.bpf.o")
    with pytest.raises(KernelError, match="it has no connect4"):
        attach(tmp_path).attach(["connect4"])


def test_flush_leaves_nothing(attach: Attach, store: Store) -> None:
    attach().attach(ours())
    store.write_slot(1, bytes(64), b"index", 4, bytes(16))
    with Link.from_pin(store.pin_dir / "links" / "connect4") as held:
        flushed = flush(store.pin_dir)
        assert held.info().cgroup_id == 0  # whoever holds it
    assert set(flushed.links) == set(ours())
    assert flushed.left == ()
    assert not store.pin_dir.exists()
    assert flush(store.pin_dir) == type(flushed)()


def test_flush_takes_another_abi_away_too(store: Store) -> None:
    (store.pin_dir / "meta").unlink()
    with Map.create(MapType.ARRAY, "cgn_meta", key_size=4, value_size=128, max_entries=1) as newer:
        newer.pin(store.pin_dir / "meta")
    with Map.create(MapType.HASH, "cgn_later", key_size=4, value_size=128, max_entries=1) as newer:
        newer.pin(store.pin_dir / "maps" / "later")
    flush(store.pin_dir)
    assert not store.pin_dir.exists()


def test_flush_leaves_what_is_not_ours(
    attach: Attach, store: Store, compile_sample: Path, cgroup_root: CgroupRoot
) -> None:
    attach().attach(["connect4"])
    with Map.create(MapType.ARRAY, "theirs", key_size=4, value_size=8, max_entries=1) as other:
        other.pin(store.pin_dir / "maps" / "theirs")
    with Object(compile_sample) as opened:
        for name, defined in opened.programs.items():
            defined.set_autoload(name == "sample_deny")
        opened.load()
        with opened.programs["sample_deny"].open() as program:
            link = Link.attach_cgroup(program, cgroup_root.fd, AttachType.CGROUP_INET4_CONNECT)
    with link:
        link.pin(store.pin_dir / "links" / "connect6")
        flushed = flush(store.pin_dir)
        assert flushed.links == ("connect4",)
        assert flushed.left == ("links/connect6", "maps/theirs")
        assert link.info().cgroup_id == cgroup_root.id


@pytest.fixture
def compile_sample(compile_bpf: Callable[[str], Path]) -> Path:
    return compile_bpf("sample")


def test_flush_of_a_place_that_is_no_bpffs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    with pytest.raises(PinError, match="not on a bpffs"):
        flush(tmp_path)
    assert (tmp_path / "maps").exists()


def test_no_capability_is_said_by_name(private_cgroup: PrivateCgroup) -> None:
    def unprivileged() -> Features:
        os.setresuid(65534, 65534, 65534)
        return features.probe()

    with pytest.raises(PrivilegeError, match=r"run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"):
        private_cgroup.call(unprivileged)


def test_ungoverned_calls_are_let_through(attach: Attach, private_cgroup: PrivateCgroup) -> None:
    def calls() -> tuple[int, int]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            return udp.sendto(b"x", ("127.0.0.1", 9)), udp.connect_ex(("127.0.0.1", 9))

    attach().attach(ours())
    assert private_cgroup.call(calls) == (1, 0)


def test_attaching_to_a_removed_root_says_so(
    store: Store, kernel_features: Features, objects: Path, private_cgroup: PrivateCgroup
) -> None:
    gone = private_cgroup.child("gone")
    with CgroupRoot(gone.path) as root, Programs(store, kernel_features, objects) as programs:
        gone.path.rmdir()
        with pytest.raises(KernelError, match=f"attach connect4 to {gone.path}: bpf_link_create: No such file"):
            Attachments(store, root, programs).attach(["connect4"])
