# SPDX-License-Identifier: Apache-2.0
"""Making and opening the pinned maps, so that a crash at any point leaves something the next start completes.

Layout (below the pin directory): meta, maps/NAME, slots/N/{image,index,counters,live}, links/HOOK. `meta` comes last:
with it the set is whole. Names that begin with "new_" are unfinished steps. Must not know what maps hold, but for
`meta`.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from cgnetd import __version__
from cgnetd.errors import PinError
from cgnetd.kernel import bpffs, layout
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.maps import PREFIX, Capacity, MapSpec, check_pinned, create, specs
from pybpf import BpfError, Link, Map, Program

META = "meta"
MAPS = "maps"
SLOTS = "slots"
LINKS = "links"
NEW = "new_"
OURS = frozenset((META, MAPS, SLOTS, LINKS, NEW + META))

_FIRST = (0).to_bytes(4, sys.byteorder)


def pin_over(thing: Map | Link, path: Path) -> None:
    """Pin in one step in the place of whatever is pinned at `path`."""
    aside = path.with_name(NEW + path.name)
    try:
        aside.unlink(missing_ok=True)
        thing.pin(aside)
        aside.rename(path)
    except OSError as error:
        raise kernel_error(f"pin {path}", error) from error


def open_map(spec: MapSpec, path: Path) -> Map | None:
    """The pinned map, checked; None if nothing is pinned there. PinError if it is something else."""
    try:
        found = Map.from_pin(path)
    except BpfError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno == errno.EINVAL:
            raise PinError(f"use pin {path}: {error.log}; remove it, or everything with: cgnetctl flush") from error
        raise kernel_error(f"open pin {path}", error) from error
    try:
        check_pinned(spec, found, path)
    except PinError:
        found.close()
        raise
    return found


def check_meta(pin_dir: Path) -> bool:
    """Whether the set is whole. PinError if it is another ABI's or not ours; nothing was touched then."""
    meta = open_map(_meta_spec(), pin_dir / META)
    if meta is None:
        return False
    with meta:
        magic, abi, _, maker = layout.META.unpack(meta.lookup(_FIRST) or bytes(layout.META.size))
    made_by = maker.rstrip(b"\0").decode("utf-8", "replace") or "unknown"
    if magic != layout.MAGIC:
        raise PinError(f"use pin directory {pin_dir}: its meta is not of cgnetd; choose another directory")
    if abi != layout.ABI_VERSION:
        raise PinError(
            f"use pin directory {pin_dir}: it holds ABI version {abi} (cgnetd {made_by}), this is ABI version "
            f"{layout.ABI_VERSION} (cgnetd {__version__}); start that version again, or take its enforcement away "
            f"with: cgnetctl flush --pin-dir {pin_dir}"
        )
    return True


def open_pins(pin_dir: Path, capacity: Capacity, *, create_missing: bool) -> dict[str, Map]:
    """Every map by pin name. With `create_missing` whatever is absent is made, otherwise that is a PinError."""
    if create_missing:
        bpffs.make_pin_dir(pin_dir)
    elif not bpffs.check_pin_dir(pin_dir):
        raise PinError(f"open pin directory {pin_dir}: nothing is pinned there")
    whole = check_meta(pin_dir)
    if not whole:
        _check_foreign(pin_dir)
        if not create_missing:
            raise PinError(f"open pin directory {pin_dir}: nothing is pinned there")
    with ExitStack() as undo:
        found = _complete(pin_dir, capacity, undo) if create_missing else _open_all(pin_dir, capacity, undo)
        undo.pop_all()
    return found


def _open_all(pin_dir: Path, capacity: Capacity, undo: ExitStack) -> dict[str, Map]:
    found = {}
    for spec in specs(capacity):
        pinned = open_map(spec, path_of(pin_dir, spec.pin))
        if pinned is None:
            raise PinError(
                f"open pin directory {pin_dir}: {path_of(pin_dir, spec.pin)} is missing; start cgnetd to repair it"
            )
        found[spec.pin] = undo.enter_context(pinned)
    return found


def _complete(pin_dir: Path, capacity: Capacity, undo: ExitStack) -> dict[str, Map]:
    """Open what is pinned; what is not, take from the attached programs that still use it, or make it."""
    _make_dirs(pin_dir)
    _drop_unfinished(pin_dir)
    found: dict[str, Map] = {}
    missing = []
    for spec in specs(capacity):
        pinned = open_map(spec, path_of(pin_dir, spec.pin))
        if pinned is None:
            missing.append(spec)
        else:
            found[spec.pin] = undo.enter_context(pinned)
    if not missing:
        return found
    with ExitStack() as borrowed:
        in_use = maps_in_use(pin_dir)
        for used in in_use.values():
            borrowed.enter_context(used)
        for spec in sorted(missing, key=lambda spec: spec.pin == META):
            again = in_use.get(spec.name)
            made = undo.enter_context(Map(os.dup(again.fd)) if again else create(spec))
            if spec.pin == META:
                _fill_meta(made)
            pin_over(made, path_of(pin_dir, spec.pin))
            found[spec.pin] = made
    return found


def path_of(pin_dir: Path, pin: str) -> Path:
    return pin_dir / META if pin == META else pin_dir / MAPS / pin


def maps_in_use(pin_dir: Path) -> dict[str, Map]:
    """Our maps that the programs of the pinned links use, by name in the kernel. The caller closes them."""
    used: dict[str, Map] = {}
    for path in sorted((pin_dir / LINKS).glob("*")):
        try:
            with Link.from_pin(path) as link, Program.from_id(link.info().prog_id) as program:
                map_ids = program.info.map_ids
        except BpfError:
            continue  # not a link, or gone: of no use here
        for map_id in map_ids:
            found = Map.from_id(map_id)
            if found.info.name.startswith(PREFIX) and found.info.name not in used:
                used[found.info.name] = found
            else:
                found.close()
    return used


def _make_dirs(pin_dir: Path) -> None:
    for name in (MAPS, SLOTS, LINKS, *(f"{SLOTS}/{slot}" for slot in range(layout.SLOTS))):
        bpffs.make_dir(pin_dir / name)


def _drop_unfinished(pin_dir: Path) -> None:
    """Pins that a killed daemon made but did not put in place; a link among them would judge every call twice."""
    for path in (*pin_dir.glob(f"{NEW}*"), *pin_dir.glob(f"*/{NEW}*"), *pin_dir.glob(f"{SLOTS}/*/{NEW}*")):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def _check_foreign(pin_dir: Path) -> None:
    """The pin directory may be the top of a bpffs: the kernel's own files there have a dot in their names."""
    foreign = sorted(path.name for path in pin_dir.iterdir() if path.name not in OURS and "." not in path.name)
    if foreign:
        names = ", ".join(foreign[:5])
        raise PinError(f"use pin directory {pin_dir}: it holds {names}, not made by cgnetd; choose another directory")


def _meta_spec() -> MapSpec:
    return next(spec for spec in specs(Capacity()) if spec.pin == META)


def _fill_meta(meta: Map) -> None:
    made_by = __version__.encode()[:47]
    meta.update(_FIRST, layout.META.pack(layout.MAGIC, layout.ABI_VERSION, time.time_ns(), made_by))
    meta.freeze()
