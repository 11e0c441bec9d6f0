# SPDX-License-Identifier: Apache-2.0
"""The tables of one slot: image, rule index, counters, live cells; made aside, pinned, put into the maps of tables.

Must not know what an image, an index or a live cell says. A table is an array of 64-bit cells. The index is bytes
behind a cell with their length.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.errors import KernelError, PinError
from cgnetd.kernel import bpffs, layout
from cgnetd.kernel.failure import SHORTAGES, kernel_error
from cgnetd.kernel.maps import create, table_spec
from cgnetd.kernel.pins import NEW, SLOTS, pin_over
from pybpf import BpfError, Map, Mapping, possible_cpus

IMAGE = "image"
INDEX = "index"
COUNTERS = "counters"
LIVE = "live"
TABLES = (IMAGE, INDEX, COUNTERS, LIVE)

_LENGTH = struct.Struct("=Q")
_POLL_S = 20e-6


@dataclass(frozen=True, slots=True)
class Outer:
    """The maps of tables."""

    images: Map
    counters: Map
    live: Map

    def all(self) -> tuple[Map, ...]:
        return (self.images, self.counters, self.live)


def key_of(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def counter_cells(rule_count: int) -> int:
    """A row of counters for each possible CPU, and the daemon's own."""
    return (possible_cpus() + 1) * rule_count * layout.COUNTER_KINDS


def write_tables(
    pin_dir: Path,
    outer: Outer,
    slot: int,
    *,
    cells: bytes | memoryview,
    head: bytes,
    index: bytes,
    rule_count: int,
    live: bytes | memoryview,
) -> None:
    """Fill a slot that is not in force. An error leaves what was in it, or tables that are not `consistent`."""
    directory = pin_dir / SLOTS / str(slot)
    bpffs.make_dir(directory.parent)
    bpffs.make_dir(directory)
    with ExitStack() as stack:
        content = memoryview(cells).cast("B")
        image = stack.enter_context(_filled(IMAGE, content, head=head, frozen=True, value_bytes=layout.BLOCK_BYTES))
        names = stack.enter_context(_index_table(index))
        counters = stack.enter_context(create(table_spec(COUNTERS, counter_cells(rule_count))))
        living = stack.enter_context(_filled(LIVE, memoryview(live).cast("B"), frozen=False))
        for name, table in ((IMAGE, image), (INDEX, names), (COUNTERS, counters), (LIVE, living)):
            pin_over(table, directory / name)
        _put(outer, slot, images=image, counters=counters, live=living)


def _put(outer: Outer, slot: int, *, images: Map, counters: Map, live: Map) -> None:
    """Put tables into a slot, and return when they are there.

    The system call of each stays in the kernel for some 15 ms more, until the programs that run have ended
    (kernel/bpf/syscall.c: maybe_wait_bpf_programs). That is for whoever frees what was there before; what uses the slot
    had ended already. So each is made by a thread, which is left behind.
    """
    placed = ((outer.images, images), (outer.counters, counters), (outer.live, live))
    pool = ThreadPoolExecutor(len(placed))
    updates: list[Future[None]] = []
    try:
        for tables, table in placed:
            updates.append(pool.submit(tables.update, key_of(slot), key_of(table.fd)))
    except RuntimeError as error:  # no room for another thread
        raise KernelError(f"put tables into slot {slot}: {error}") from error
    finally:
        # The descriptors are closed by our caller: no thread may have its call still to make, whatever went wrong.
        for update, (tables, table) in zip(updates, placed, strict=False):
            _until_held(update, tables, slot, table.info.id)
        pool.shutdown(wait=False)
    _raise_failure(updates, slot)


def _until_held(update: Future[None], tables: Map, slot: int, map_id: int) -> None:
    """Return when the slot holds the map of this id, or when the update came to its end."""
    held = key_of(map_id)
    try:
        while not update.done() and tables.lookup(key_of(slot)) != held:
            time.sleep(_POLL_S)
    except BpfError:  # it cannot be told
        wait([update])


def _raise_failure(updates: Sequence[Future[None]], slot: int) -> None:
    """An update that is not done yet can fail no more."""
    try:
        for update in updates:
            if update.done():
                update.result()
    except BpfError as error:
        raise kernel_error(f"put tables into slot {slot}", error) from error


def _filled(
    name: str, content: memoryview, *, head: bytes = b"", frozen: bool, value_bytes: int = layout.CELL_BYTES
) -> Map:
    table = create(table_spec(name, -(-len(content) // value_bytes), value_bytes))
    try:
        with table.mmap(writable=True) as memory:
            memory.bytes[: len(content)] = content
            memory.bytes[: len(head)] = head
        if frozen:
            table.freeze()
    except (OSError, ValueError):
        table.close()
        raise
    return table


def _index_table(index: bytes) -> Map:
    return _filled(INDEX, memoryview(_LENGTH.pack(len(index)) + index), frozen=True)


def tables_of(outer: Outer, slot: int, index: bytes) -> dict[str, Map]:
    """The tables that a slot holds, by the names of their pins; that of the index, which only its pin held, is made
    anew. The caller closes them. PinError if one is missing."""
    with ExitStack() as undo:
        found = {INDEX: undo.enter_context(_index_table(index))}
        for name, tables in ((IMAGE, outer.images), (COUNTERS, outer.counters), (LIVE, outer.live)):
            held = tables.lookup(key_of(slot))
            if held is None:
                raise PinError(f"open the tables of slot {slot}: there is no {name}")
            found[name] = undo.enter_context(Map.from_id(int.from_bytes(held, sys.byteorder)))
        undo.pop_all()
    return found


def clear_tables(pin_dir: Path, outer: Outer, slot: int) -> None:
    """Take the tables out of a slot and remove their pins; fine if there are none."""
    for table_map in outer.all():
        try:
            table_map.delete(key_of(slot))
        except BpfError as error:
            raise kernel_error(f"clear slot {slot}", error) from error
    for name in TABLES:
        for pin in (name, NEW + name):
            (pin_dir / SLOTS / str(slot) / pin).unlink(missing_ok=True)


class SlotView:
    """What is in a slot now. Holds descriptors and memory: close it, after letting go of views of its memory.

    `consistent` is False when a table is missing, not pinned where it belongs, or not frozen: write the slot again.
    """

    def __init__(self, pin_dir: Path, outer: Outer, slot: int) -> None:
        self.slot = slot
        self._stack = ExitStack()
        self.image: memoryview | None = None
        self.counters: memoryview | None = None
        self.live: memoryview | None = None
        try:
            self._open(pin_dir / SLOTS / str(slot), outer)
        except BaseException:
            self.close()
            raise

    def _open(self, directory: Path, outer: Outer) -> None:
        image = self._inner(outer.images)
        counters = self._inner(outer.counters)
        live = self._inner(outer.live)
        index = self._pinned(directory, INDEX)
        self.image_id = image.info.id if image else 0
        self.counters_id = counters.info.id if counters else 0
        self.image = self._memory(image).words() if image else None
        self.counters = self._memory(counters).words() if counters else None
        self.live = self._memory(live).words() if live else None
        self.index: bytes | None = self._index(index) if index else None
        self.rule_count = counters.info.max_entries // counter_cells(1) if counters else 0
        pinned = {name: self._pinned(directory, name) for name in (IMAGE, COUNTERS, LIVE)}
        self.consistent = (
            _same(image, pinned[IMAGE])
            and _same(counters, pinned[COUNTERS])
            and _same(live, pinned[LIVE])
            and index is not None
            and is_frozen(index)
            and image is not None
            and is_frozen(image)
        )

    @property
    def empty(self) -> bool:
        return self.image is None and self.counters is None and self.live is None

    def totals(self) -> list[int]:
        """Calls counted, summed over all rows: [rule id * 2 + kind]. Empty without counters."""
        if self.counters is None:
            return []
        width = max(self.rule_count * layout.COUNTER_KINDS, 1)
        rows = [self.counters[start : start + width].tolist() for start in range(0, len(self.counters), width)]
        return [sum(column) for column in zip(*rows, strict=True)]

    def _inner(self, tables: Map) -> Map | None:
        found = tables.lookup(key_of(self.slot))
        if found is None:
            return None
        return self._stack.enter_context(Map.from_id(int.from_bytes(found, sys.byteorder)))

    def _pinned(self, directory: Path, name: str) -> Map | None:
        try:
            found = Map.from_pin(directory / name)
        except BpfError as error:
            if error.errno in SHORTAGES:
                raise  # says nothing about the pin
            return None  # absent or not a map: either way not ours, and the slot is not consistent
        return self._stack.enter_context(found)

    def _memory(self, table: Map) -> Mapping:
        return self._stack.enter_context(table.mmap())

    def _index(self, table: Map) -> bytes | None:
        with table.mmap() as memory:
            (length,) = _LENGTH.unpack_from(memory.bytes)
            content = bytes(memory.bytes[_LENGTH.size : _LENGTH.size + length])
        return content if len(content) == length else None

    def close(self) -> None:
        for view in (self.image, self.counters, self.live):
            if view is not None:
                view.release()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_live(outer: Outer, slot: int) -> Map:
    """The table of live cells; the caller closes it. PinError if the slot has none."""
    found = outer.live.lookup(key_of(slot))
    if found is None:
        raise PinError(f"open live cells of slot {slot}: it has none")
    return Map.from_id(int.from_bytes(found, sys.byteorder))


def write_carry(outer: Outer, slot: int, totals: list[int]) -> None:
    """Write the daemon's own row of a slot's counters: what earlier generations had counted, [rule id * 2 + kind]."""
    found = outer.counters.lookup(key_of(slot))
    if found is None:
        raise PinError(f"carry counters into slot {slot}: it has none")
    with Map.from_id(int.from_bytes(found, sys.byteorder)) as table, table.mmap(writable=True) as memory:
        if (possible_cpus() + 1) * len(totals) != table.info.max_entries:
            raise ValueError(f"{len(totals)} totals for a slot with {table.info.max_entries} counters")
        start = possible_cpus() * len(totals) * 8
        memory.bytes[start : start + len(totals) * 8] = struct.pack(f"={len(totals)}Q", *totals)


def _same(one: Map | None, other: Map | None) -> bool:
    return one is not None and other is not None and one.info.id == other.info.id


def is_frozen(table: Map) -> bool:
    """Whether no system call can write the map any more (the kernel tells in fdinfo only)."""
    with open(f"/proc/self/fdinfo/{table.fd}", encoding="ascii") as lines:
        return any(line.split() == ["frozen:", "1"] for line in lines)
