# SPDX-License-Identifier: Apache-2.0
"""The shape of every map, equal to bpf/maps.bpf.h (a test compares the two). Must not know where maps are pinned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cgnetd.errors import KernelError, PinError
from cgnetd.kernel import layout
from cgnetd.kernel.failure import kernel_error
from pybpf import BpfError, Map, MapFlag, MapInfo, MapType, ObjectMap

PREFIX = "cgn_"

_TABLE_FLAGS = MapFlag.MMAPABLE | MapFlag.INNER_MAP


@dataclass(frozen=True, slots=True)
class MapSpec:
    """Sizes in bytes. `pin` is its name below `maps/`; in the object files and in the kernel it is `cgn_` + pin."""

    pin: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlag = MapFlag.NONE
    resizable: bool = False  # max_entries is a limit that may differ
    table_bytes: int = 0  # value size of the tables that it is a map of; 0: it is none

    @property
    def name(self) -> str:
        return PREFIX + self.pin


@dataclass(frozen=True, slots=True)
class Capacity:
    """Entries that the maps are made for; pins of another capacity are used as they are."""

    labels: int = 65536
    flows: int = 16384
    # A power of two, whole pages; twice as much is resident in whoever reads it. Programs keep an eighth for records of
    # new cgroups: without one nobody knows a cgroup's name when it is gone.
    events_bytes: int = 1024 * 1024


def specs(capacity: Capacity) -> tuple[MapSpec, ...]:
    kind = MapType
    return (
        MapSpec("meta", kind.ARRAY, 4, layout.META.size, 1),
        MapSpec("control", kind.ARRAY, 4, layout.CONTROL.size, 1, MapFlag.MMAPABLE),
        MapSpec("labels", kind.HASH, 8, layout.LABEL_ENTRY_BYTES, capacity.labels, resizable=True),
        MapSpec("images", kind.ARRAY_OF_MAPS, 4, 4, layout.SLOTS, table_bytes=layout.BLOCK_BYTES),
        MapSpec("counters", kind.ARRAY_OF_MAPS, 4, 4, layout.SLOTS, table_bytes=layout.CELL_BYTES),
        MapSpec("flows", kind.HASH, layout.FLOW_KEY_BYTES, layout.FLOW_VALUE_BYTES, capacity.flows, resizable=True),
        _quotas(capacity),
        MapSpec("stats", kind.PERCPU_ARRAY, 4, 8, layout.STAT_COUNT),
        MapSpec("events", kind.RINGBUF, 0, 0, capacity.events_bytes, resizable=True),
        MapSpec("cache", kind.PERCPU_ARRAY, 4, layout.CACHED_BYTES, layout.CACHE_ENTRIES),
        MapSpec("sights", kind.PERCPU_ARRAY, 4, layout.CACHE_ENTRIES, 1),
        MapSpec("stamps", kind.SK_STORAGE, 4, 8, 0, MapFlag.NO_PREALLOC),
        MapSpec("picks", kind.ARRAY, 4, layout.PICK.size, layout.PICKS),
        MapSpec("live", kind.ARRAY_OF_MAPS, 4, 4, layout.SLOTS, table_bytes=layout.CELL_BYTES),
        MapSpec("peers", kind.SK_STORAGE, 4, layout.PEERS_BYTES, 0, MapFlag.NO_PREALLOC),
        MapSpec("binds", kind.SK_STORAGE, 4, layout.VIEW_BYTES, 0, MapFlag.NO_PREALLOC | MapFlag.CLONE),
        MapSpec("talks", kind.SK_STORAGE, 4, layout.TALKS_BYTES, 0, MapFlag.NO_PREALLOC),
        MapSpec("origins", kind.SK_STORAGE, 4, layout.ORIGIN_BYTES, 0, MapFlag.NO_PREALLOC),
        MapSpec("handoffs", kind.LRU_HASH, layout.HANDOFF_KEY_BYTES, layout.ORIGIN_BYTES, 65536),
        MapSpec("sticky", kind.LRU_HASH, layout.STICKY_KEY_BYTES, layout.STICKY_VALUE_BYTES, 65536),
        MapSpec("names", kind.SK_STORAGE, 4, layout.NAMES_BYTES, 0, MapFlag.NO_PREALLOC),
    )


def _quotas(capacity: Capacity) -> MapSpec:
    shape = (layout.QUOTA_KEY.size, layout.QUOTA.size, layout.QUOTA_LEVELS * capacity.flows, MapFlag.NO_PREALLOC)
    return MapSpec("quotas", MapType.HASH, *shape, resizable=True)


def table_spec(pin: str, entries: int, value_bytes: int = layout.CELL_BYTES) -> MapSpec:
    """An array of 64-bit cells that can be mapped into memory and put into a map of tables."""
    return MapSpec(pin, MapType.ARRAY, 4, value_bytes, max(entries, 1), _TABLE_FLAGS)


def create(spec: MapSpec) -> Map:
    """KernelError or PrivilegeError if the kernel refuses."""
    if not spec.table_bytes:
        return _create(spec, None)
    with _create(table_spec("template", 1, spec.table_bytes), None) as template:
        return _create(spec, template)


def _create(spec: MapSpec, inner: Map | None) -> Map:
    try:
        return Map.create(
            spec.type,
            spec.name,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            flags=spec.flags,
            inner=inner,
        )
    except BpfError as error:
        raise kernel_error(f"create map {spec.name}", error) from error


def difference(spec: MapSpec, found: MapInfo | ObjectMap) -> str:
    """How a map differs from its spec, in words; "" if it does not."""
    wanted = {
        "type": int(spec.type),
        "key size": spec.key_size,
        "value size": spec.value_size,
        "max entries": spec.max_entries,
        "flags": int(spec.flags),
    }
    actual = {
        "type": found.type,
        "key size": found.key_size,
        "value size": found.value_size,
        "max entries": spec.max_entries if spec.resizable else found.max_entries,
        "flags": found.flags,
    }
    return ", ".join(
        f"{what} {actual[what]} instead of {wanted[what]}" for what in wanted if actual[what] != wanted[what]
    )


def check_pinned(spec: MapSpec, found: Map, where: object) -> None:
    """PinError if a pinned map is not what its name says."""
    problem = difference(spec, found.info)
    if found.info.name != spec.name:
        problem = f"it is the map {found.info.name}" + (f", {problem}" if problem else "")
    if problem:
        raise PinError(f"use pin {where}: {problem}; remove it, or everything with: cgnetctl flush")


def check_object(spec: MapSpec, found: ObjectMap, where: object) -> None:
    """KernelError if an object file was built for another shape of a map."""
    problem = difference(replace(spec, resizable=True), found)
    if problem:
        raise KernelError(f"use object {where}: map {spec.name}: {problem}; build the objects again: make bpf")
