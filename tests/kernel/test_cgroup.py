# SPDX-License-Identifier: Apache-2.0
"""The cgroup tree: found, walked, ids to paths and back, levels."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest

from cgnetd.errors import KernelError, PrivilegeError
from cgnetd.kernel.cgroup import Cgroup, CgroupRoot, find_root, pid_cgroup
from cgnetd.kernel.cgroup_level import own_ancestor_ids
from cgnetd.kernel.mounts import Mount, parse_mountinfo
from support import sandbox
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

_NEW_MOUNTS_AND_CGROUPS = 0x00020000 | 0x02000000
_PRIVATE_ALL = (1 << 18) | (1 << 14)
_BIND = 1 << 12


def test_walk_tells_parents_before_children(private_cgroup: PrivateCgroup) -> None:
    for name in ("a/b/c", "a/d", "e"):
        private_cgroup.child(name)
    with CgroupRoot(private_cgroup.path) as root:
        seen = list(root.walk())
    assert seen[0] == Cgroup(private_cgroup.id, 0, "", "/")
    assert {entry.path for entry in seen} == {"/", "/a", "/a/b", "/a/b/c", "/a/d", "/e"}
    known: set[int] = set()
    for entry in seen:
        assert entry.parent_id in known or entry.path == "/"
        assert entry.id == os.stat(f"{private_cgroup.path}{entry.path}").st_ino
        assert entry.name == entry.path.rpartition("/")[2]
        known.add(entry.id)


def test_walk_survives_directories_that_vanish(private_cgroup: PrivateCgroup) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            private_cgroup.child("a/b/c")
            for name in ("a/b/c", "a/b", "a"):
                (private_cgroup.path / name).rmdir()

    other = threading.Thread(target=churn)
    other.start()
    try:
        with CgroupRoot(private_cgroup.path) as root:
            for _ in range(300):
                assert len(list(root.walk())) <= 4
    finally:
        stop.set()
        other.join()


def test_names_that_are_no_text_come_back(private_cgroup: PrivateCgroup) -> None:
    name = os.fsdecode(b"caf\xe9 \\x2d")
    private_cgroup.child(name)
    with CgroupRoot(private_cgroup.path) as root:
        entry = list(root.walk())[1]
        assert os.fsencode(entry.name) == b"caf\xe9 \\x2d"
        assert root.path_of(entry.id) == f"/{name}"


def test_id_and_path_name_each_other(private_cgroup: PrivateCgroup) -> None:
    inside = private_cgroup.child("a/b")
    with CgroupRoot(private_cgroup.path) as root, CgroupRoot(inside.path.parent) as below:
        assert root.path_of(inside.id) == "/a/b"
        assert root.id_of("/a/b") == inside.id
        assert root.path_of(root.id) == "/"
        assert below.path_of(inside.id) == "/b"
        assert below.path_of(root.id) is None
        inside.path.rmdir()
        assert root.path_of(inside_id := below.id) == "/a"
        assert inside_id == root.id_of("a")
        assert root.id_of("/a/b") is None
        assert root.path_of(2**60) is None


def test_removed_cgroup_has_no_path(private_cgroup: PrivateCgroup) -> None:
    gone = private_cgroup.child("gone")
    gone_id = gone.id
    gone.path.rmdir()
    with CgroupRoot(private_cgroup.path) as root:
        assert root.path_of(gone_id) is None


def test_process_is_found_in_its_cgroup(private_cgroup: PrivateCgroup) -> None:
    inside = private_cgroup.child("a")
    with inside.popen(["/bin/sleep", "60"]) as process, CgroupRoot(private_cgroup.path) as root:
        while "sleep" not in Path(f"/proc/{process.pid}/comm").read_text():
            pass
        assert root.pid_path(process.pid) == "/a"
        assert pid_cgroup(process.pid) == inside.path
        assert root.pid_path(os.getpid()) is None
        process.kill()
    assert pid_cgroup(2**22 + 1) is None


def test_level_counts_from_the_hierarchys_root(private_cgroup: PrivateCgroup) -> None:
    inside = private_cgroup.child("a/b")
    with CgroupRoot(inside.path) as root:
        assert root.level == private_cgroup.call(lambda: _level_by_doing(inside)) == len(_below_mount(inside.path))


def _level_by_doing(inside: PrivateCgroup) -> int:
    inside.enter()
    return own_ancestor_ids().index(inside.id)


def _below_mount(path: Path) -> tuple[str, ...]:
    return path.relative_to(find_root()).parts


def test_level_in_a_cgroup_namespace_is_the_same(private_cgroup: PrivateCgroup, tmp_path: Path) -> None:
    inside = private_cgroup.child("a/b")

    def in_namespace() -> tuple[int, int, str | None]:
        _unshare()
        sandbox.mount("cgroup2", tmp_path, "cgroup2")
        with CgroupRoot(tmp_path / "a") as root:
            return root.level, root.id, root.path_of(inside.id)

    with CgroupRoot(inside.path.parent) as outside:
        assert private_cgroup.call(in_namespace) == (outside.level, outside.id, "/b")


def test_level_below_a_bind_mount_is_the_same(private_cgroup: PrivateCgroup, tmp_path: Path) -> None:
    inside = private_cgroup.child("a/b")

    def bound() -> tuple[int, str | None]:
        _unshare()
        sandbox.mount(str(private_cgroup.path), tmp_path, "none", _BIND)
        with CgroupRoot(tmp_path / "a") as root:
            return root.level, root.path_of(inside.id)

    with CgroupRoot(inside.path.parent) as outside:
        assert private_cgroup.call(bound) == (outside.level, "/b")


def test_part_of_a_hierarchy_that_we_are_not_in_is_refused(private_cgroup: PrivateCgroup, tmp_path: Path) -> None:
    outside = private_cgroup.child("outside")

    def bound() -> int:
        _unshare()
        sandbox.mount(str(outside.path), tmp_path, "none", _BIND)
        with CgroupRoot(tmp_path) as root:
            return root.level

    with pytest.raises(KernelError, match="run the daemon in it"):
        private_cgroup.child("inside").call(bound)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_NEW_MOUNTS_AND_CGROUPS) == 0
    sandbox.mount("none", Path("/"), "none", _PRIVATE_ALL)


def test_place_that_is_no_cgroup_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="not a directory of a cgroup2 file system; give a directory of"):
        CgroupRoot(tmp_path)
    with pytest.raises(KernelError, match="No such file or directory; give"):
        CgroupRoot(find_root() / "not-there")
    with pytest.raises(KernelError, match="not a directory of a cgroup2"):
        CgroupRoot(find_root() / "cgroup.procs")


def test_looking_up_an_id_without_the_capability_says_which(private_cgroup: PrivateCgroup) -> None:
    with CgroupRoot(private_cgroup.path) as root:

        def unprivileged() -> str | None:
            os.setresuid(65534, 65534, 65534)
            return root.path_of(root.id)

        with pytest.raises(PrivilegeError, match="CAP_DAC_READ_SEARCH"):
            private_cgroup.call(unprivileged)


def test_mountinfo_of_a_hybrid_host_is_understood() -> None:
    text = (
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
        "36 31 0:33 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw\n"
        "42 31 0:38 /docker/a /mnt rw - cgroup2 none rw\n"
    )
    assert parse_mountinfo(text) == (Mount(Path("/sys/fs/cgroup/uni fied"), "/"), Mount(Path("/mnt"), "/docker/a"))
