# SPDX-License-Identifier: Apache-2.0
"""The cgroup v2 tree: where it is, ids, levels, walking it. Must not know policies, units or labels.

A cgroup's id is the inode number of its directory (kernel: kernfs_id_ino).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cgnetd.errors import KernelError, PrivilegeError
from cgnetd.kernel.bpffs import CGROUP2_MAGIC, filesystem_magic
from cgnetd.kernel.cgroup_level import mount_level
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.mounts import Mount, cgroup2_mounts
from pybpf import AttachType, BpfError, cgroup_programs

_FILEID_KERNFS = 0xFE
_LEAF_LINKS = 2  # st_nlink of a cgroup directory is 2 + number of its children
_DELETED = " (deleted)"


class Cgroup(NamedTuple):
    """One cgroup. `path` is relative to the managed root ("/", "/a/b"); the root: name "", parent_id 0."""

    id: int
    parent_id: int
    name: str
    path: str


class _FileHandle(ctypes.Structure):
    _fields_ = (("handle_bytes", ctypes.c_uint), ("handle_type", ctypes.c_int), ("id", ctypes.c_uint64))
    _pack_ = 4


def find_root() -> Path:
    """Where the cgroup v2 hierarchy is mounted, alone or beside v1 hierarchies. KernelError if it is not."""
    mounts = cgroup2_mounts()
    if not mounts:
        raise KernelError(
            "find cgroup root: no cgroup2 mount in /proc/self/mountinfo; boot with systemd.unified_cgroup_hierarchy=1 "
            "or mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    return min(mounts, key=lambda mount: (mount.root != "/", len(mount.point.parts))).point


def pid_cgroup(pid: int) -> Path | None:
    """Directory of the cgroup a process is in, None if gone or not below a mount that we see."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return None
    own = next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)
    if own is None:
        return None
    for mount in cgroup2_mounts():
        relative = _below(own.removesuffix(_DELETED), mount.root)
        if relative is not None and (mount.point / relative).is_dir():
            return mount.point / relative
    return None


def _below(path: str, root: str) -> str | None:
    prefix = root.rstrip("/") + "/"
    if path == root:
        return ""
    return path.removeprefix(prefix) if path.startswith(prefix) else None


class CgroupRoot:
    """The directory that is managed, with everything below it. Holds a descriptor of it (`fd`), so it needs closing.

    `id` is its cgroup id, `level` its depth as bpf_get_current_ancestor_cgroup_id counts (the hierarchy's root is 0).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        self.fd = _open_cgroup(self.path)
        try:
            self.id = os.fstat(self.fd).st_ino
            mount = _mount_of(self.path)
            depth = len(self.path.relative_to(mount.point).parts)
            self.level = mount_level(mount.point) + depth
        except BaseException:
            self.close()
            raise

    def walk(self) -> Iterator[Cgroup]:
        """Every cgroup, parents before children, the root first. Directories that vanish meanwhile are passed over."""
        yield Cgroup(self.id, 0, "", "/")
        base = os.fspath(self.path)
        pending = [(base, "", self.id)]
        while pending:
            directory, path, parent_id = pending.pop()
            for name, cgroup_id, leaf in _children(directory):
                child_path = f"{path}/{name}"
                yield Cgroup(cgroup_id, parent_id, name, child_path)
                if not leaf:
                    pending.append((f"{directory}/{name}", child_path, cgroup_id))

    def descendants(self) -> int | None:
        """How many cgroups there are below the root, as the kernel counts; None if it does not tell.

        Kernel: cgroup_create() and cgroup_destroy_locked() keep the number, under cgroup_mutex as tracepoints run.
        """
        try:
            with open("cgroup.stat", encoding="ascii", opener=self._open_below) as file:
                found = dict(line.split() for line in file)
            return int(found["nr_descendants"])
        except (OSError, KeyError, ValueError):
            return None

    def _open_below(self, name: str, flags: int) -> int:
        return os.open(name, flags, dir_fd=self.fd)

    def settle(self) -> None:
        """Return once every mkdir that is under way has come to its end. KernelError.

        A new directory becomes visible some time after its tracepoint has run, both under the kernel's cgroup_mutex; a
        query of the programs on the root takes that mutex too.
        """
        try:
            cgroup_programs(self.fd, AttachType.CGROUP_INET_SOCK_CREATE)
        except BpfError as error:
            raise kernel_error(f"query programs on {self.path}", error) from error

    def path_of(self, cgroup_id: int) -> str | None:
        """Path of a cgroup relative to the root; None if gone or not below it. Needs CAP_DAC_READ_SEARCH."""
        directory = _path_by_handle(self.fd, cgroup_id)
        if directory is None or directory.endswith(_DELETED):
            return None
        relative = _below(directory, os.fspath(self.path))
        return None if relative is None else f"/{relative}"

    def id_of(self, path: str) -> int | None:
        """Id of the cgroup at a path relative to the root, None if there is none."""
        try:
            return os.stat(f"{self.path}/{path.strip('/')}").st_ino
        except (FileNotFoundError, NotADirectoryError):
            return None

    def pid_path(self, pid: int) -> str | None:
        """Path, relative to the root, of the cgroup a process is in; None if it is gone or not below the root."""
        directory = pid_cgroup(pid)
        relative = None if directory is None else _below(os.fspath(directory), os.fspath(self.path))
        return None if relative is None else f"/{relative}"

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _children(directory: str) -> Iterator[tuple[str, int, bool]]:
    """(name, id, whether it has no children itself)."""
    try:
        entries = os.scandir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.name, found.st_ino, found.st_nlink <= _LEAF_LINKS


def _open_cgroup(path: Path) -> int:
    advice = "give a directory of the cgroup v2 hierarchy (findmnt -t cgroup2 shows where it is mounted)"
    try:
        if filesystem_magic(path) == CGROUP2_MAGIC and path.is_dir():
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"open cgroup root {path}: {error.strerror}; {advice}") from error
    raise KernelError(f"open cgroup root {path}: not a directory of a cgroup2 file system; {advice}")


def _mount_of(path: Path) -> Mount:
    above = [mount for mount in cgroup2_mounts() if path.is_relative_to(mount.point)]
    if not above:
        raise KernelError(f"open cgroup root {path}: its mount is not in /proc/self/mountinfo")
    return max(above, key=lambda mount: len(mount.point.parts))


def _path_by_handle(mount_fd: int, cgroup_id: int) -> str | None:
    """Kernel: kernfs_fh_to_dentry; a removed cgroup's handle is stale at once."""
    handle = _FileHandle(8, _FILEID_KERNFS, cgroup_id)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.open_by_handle_at(mount_fd, ctypes.byref(handle), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.EACCES):
            raise PrivilegeError(f"find cgroup {cgroup_id}: {os.strerror(number)}: CAP_DAC_READ_SEARCH is needed")
        return None
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
