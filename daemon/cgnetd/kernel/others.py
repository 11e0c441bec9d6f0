# SPDX-License-Identifier: Apache-2.0
"""Programs of others: what the kernel tells of one, whose it seems to be, where it is pinned.

Changes nothing. Must not know where it is attached.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgnetd.kernel.maps import PREFIX
from cgnetd.kernel.mounts import bpffs_mounts
from pybpf import BpfError, Link, LinkType, Map, Program, ProgType, link_ids, obj_get, pinned_kind

_PINS_MAX = 1000  # looked at, of all bpffs mounts together

# Names that programs are known by, as far as the kernel keeps them (15 bytes). systemd: src/core/bpf-firewall.c,
# src/core/bpf/*; Cilium: bpf/bpf_sock.c.
_OWNERS = (
    ("sd_fw_", "systemd, IPAddressAllow= and Deny=, IPAccounting="),
    ("sd_bind", "systemd, SocketBindAllow= and Deny="),
    ("sd_restrictif", "systemd, RestrictNetworkInterfaces="),
    ("sd_", "systemd"),
    ("cil_", "Cilium"),
)


@contextmanager
def unless_gone() -> Iterator[None]:
    """What is looked at by its id or a descriptor of its cgroup can be gone by then: passed over."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


@dataclass(frozen=True, slots=True)
class Other:
    """A program in the kernel. `owner` is a guess by its name or maps, "" without one. `loaded_ns`: CLOCK_BOOTTIME."""

    prog_id: int
    name: str
    type: str
    tag: str  # of its instructions, as bpftool shows it
    uid: int  # who loaded it
    loaded_ns: int
    owner: str

    def __str__(self) -> str:
        whose = f", of {self.owner}" if self.owner else ""
        return f"program {self.prog_id} {self.name or '(without a name)'} (loaded by uid {self.uid}{whose})"


def describe(prog_id: int) -> Other:
    """Of a program that is gone by now the number is known, and nothing else. BpfError EPERM without privilege."""
    with unless_gone(), Program.from_id(prog_id) as program:
        info = program.info
        kind = ProgType(info.type).name.lower() if info.type in set(ProgType) else f"type {info.type}"
        owner = _owner(info.name, info.map_ids)
        return Other(prog_id, info.name, kind, info.tag.hex(), info.uid, info.load_time_ns, owner)
    return Other(prog_id, "", "", "", 0, 0, "")


def _owner(name: str, map_ids: tuple[int, ...]) -> str:
    known = next((owner for start, owner in _OWNERS if name.startswith(start)), "")
    return known or ("another cgnetd" if any(_map_name(map_id).startswith(PREFIX) for map_id in map_ids) else "")


def _map_name(map_id: int) -> str:
    with unless_gone(), Map.from_id(map_id) as used:
        return used.info.name
    return ""


def cgroup_links() -> dict[tuple[int, int, int], int]:
    """Ids of the links that hold programs on cgroups, by (cgroup id, attach type, program id). BpfError EPERM."""
    found = {}
    for link_id in link_ids():
        with unless_gone(), Link.from_id(link_id) as link:
            info = link.info()
            if info.type == LinkType.CGROUP:
                found[info.cgroup_id, info.attach_type, info.prog_id] = link_id
    return found


def pins(prog_ids: frozenset[int]) -> dict[int, str]:
    """Where these programs, or links that hold them, are pinned, as far as that is in sight; one place each."""
    found: dict[int, str] = {}
    for _, path in zip(range(_PINS_MAX), _pinned(), strict=False):
        prog_id = _pinned_program(path)
        if prog_id in prog_ids:
            found.setdefault(prog_id, str(path))
    return found


def _pinned() -> Iterator[Path]:
    for mount in bpffs_mounts():
        for directory, _, names in os.walk(mount.point):
            yield from (Path(directory, name) for name in sorted(names))


def _pinned_program(path: Path) -> int:
    """Id of the program that is pinned at a path by itself or by its link, 0 for anything else."""
    try:
        fd = obj_get(path)
    except BpfError:
        return 0
    kind = pinned_kind(fd)
    if kind == "prog":
        with Program(fd) as program:
            return program.info.id
    if kind == "link":
        with Link(fd) as link:
            return link.info().prog_id
    os.close(fd)
    return 0
