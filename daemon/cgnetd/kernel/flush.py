# SPDX-License-Identifier: Apache-2.0
"""Taking everything away that is ours below a pin directory, without a daemon and whatever its ABI version.

Must not touch what is not ours: a map is if its name begins with "cgn_", a link if its program uses such a map.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cgnetd.errors import PinError
from cgnetd.kernel import bpffs
from cgnetd.kernel.attach import remove_link
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.maps import PREFIX
from cgnetd.kernel.pins import LINKS, MAPS, SLOTS
from pybpf import BpfError, Link, LinkType, Map, Program, obj_get, pinned_kind


@dataclass(frozen=True, slots=True)
class Flushed:
    """What was removed; `left` are paths below the pin directory that are not ours."""

    links: tuple[str, ...] = ()
    maps: int = 0
    left: tuple[str, ...] = ()


def flush(pin_dir: Path) -> Flushed:
    """Links first, then maps, then directories. An absent pin directory is fine. PinError, PrivilegeError."""
    if not pin_dir.exists():
        return Flushed()
    if not bpffs.check_pin_dir(pin_dir):
        raise PinError(f"flush {pin_dir}: it went away")
    try:
        links = _remove_links(pin_dir / LINKS)
        maps = sum(_remove_maps(pin_dir / place) for place in _map_places(pin_dir))
        left = _remove_dirs(pin_dir)
    except OSError as error:
        raise kernel_error(f"flush {pin_dir}", error) from error
    return Flushed(links, maps, left)


def _map_places(pin_dir: Path) -> tuple[str, ...]:
    slots = pin_dir / SLOTS
    numbers = sorted(path.name for path in slots.iterdir() if path.is_dir()) if slots.is_dir() else []
    return (*(f"{SLOTS}/{number}" for number in numbers), MAPS, ".")


def _entries(directory: Path) -> list[Path]:
    """Pins; what has a dot in its name is the kernel's own."""
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(path for path in found if "." not in path.name and not path.is_dir())


def _remove_links(directory: Path) -> tuple[str, ...]:
    return tuple(path.name for path in _entries(directory) if _is_our_link(path) and remove_link(path))


def _remove_maps(directory: Path) -> int:
    ours = [path for path in _entries(directory) if _is_our_map(path)]
    for path in ours:
        path.unlink(missing_ok=True)
    return len(ours)


def _remove_dirs(pin_dir: Path) -> tuple[str, ...]:
    """Bottom up, those that are empty."""
    slots = pin_dir / SLOTS
    below = [path for path in slots.iterdir() if path.is_dir()] if slots.is_dir() else []
    for directory in (*below, slots, pin_dir / MAPS, pin_dir / LINKS):
        bpffs.remove_dir(directory)
    if bpffs.remove_dir(pin_dir):
        return ()
    left = (path for path in pin_dir.rglob("*") if "." not in path.name and not path.is_dir())
    return tuple(sorted(str(path.relative_to(pin_dir)) for path in left))


def _is_our_map(path: Path) -> bool:
    try:
        with Map.from_pin(path) as found:
            return found.info.name.startswith(PREFIX)
    except BpfError:
        return False


def _is_our_link(path: Path) -> bool:
    fd = obj_get(path)
    if pinned_kind(fd) != "link":
        os.close(fd)
        return False
    with Link(fd) as link:
        info = link.info()
        if info.type not in (LinkType.CGROUP, LinkType.RAW_TRACEPOINT):
            return False
        with Program.from_id(info.prog_id) as program:
            return any(_is_ours(map_id) for map_id in program.info.map_ids)


def _is_ours(map_id: int) -> bool:
    with Map.from_id(map_id) as used:
        return used.info.name.startswith(PREFIX)
