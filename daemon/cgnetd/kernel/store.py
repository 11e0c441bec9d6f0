# SPDX-License-Identifier: Apache-2.0
"""All pinned maps of one daemon, and what is done with them. Must not know policies: labels and images are bytes.

Every step is idempotent or refused. OSError never comes out of here: KernelError, PinError or PrivilegeError do.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.errors import KernelError
from cgnetd.kernel import bpffs, layout, slots
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.grace import wait_for_programs
from cgnetd.kernel.live import LiveTable
from cgnetd.kernel.maps import Capacity, specs
from cgnetd.kernel.pins import open_pins, path_of, pin_over
from cgnetd.kernel.quotas import Quota, recount
from cgnetd.kernel.slots import SlotView
from pybpf import BpfError, Map, RingBuffer
from pybpf.batch import all_keys, delete_many, lookup_all, update_many


@dataclass(frozen=True, slots=True)
class Control:
    """struct cgn_control."""

    active: int
    generations: tuple[int, ...]  # by slot, 0: empty
    root_level: int
    root_id: int
    window_ns: int
    epoch: int
    flags: int
    netns: int  # cookie of the network namespace that the live cells speak of


class Store:
    """The maps by pin name. Open one with `Store.open`; it holds descriptors and memory, so it needs closing."""

    def __init__(self, pin_dir: Path, maps: dict[str, Map]) -> None:
        self.pin_dir = pin_dir
        self.maps = maps
        self._outer = slots.Outer(maps["images"], maps["counters"], maps["live"])
        self._control = maps["control"].mmap(writable=True)
        self._words = self._control.words("I")
        self._quads = self._control.words("Q")

    @classmethod
    def open(cls, pin_dir: Path, root: CgroupRoot, *, create: bool, capacity: Capacity | None = None) -> Self:
        """Open the pins; `create` makes or completes them. PinError: no bpffs, read-only, foreign, other ABI.

        A new set governs nothing and knows `root`. A set that is there keeps its root, see `control`.
        """
        try:
            with ExitStack() as undo:
                maps = open_pins(pin_dir, capacity or Capacity(), create_missing=create)
                for opened in maps.values():
                    undo.enter_context(opened)
                store = cls(pin_dir, maps)
                undo.pop_all()
        except OSError as error:
            raise kernel_error(f"open pin directory {pin_dir}", error) from error
        if create and not store.control().root_id:
            store.set_root(root.level, root.id)
        return store

    # -- control ------------------------------------------------------------------------------------------------

    def control(self) -> Control:
        fields = layout.CONTROL.unpack(bytes(self._control.bytes[: layout.CONTROL.size]))
        active, generations, rest = fields[0], fields[1 : 1 + layout.SLOTS], fields[1 + layout.SLOTS :]
        return Control(active, generations, *rest)

    def set_root(self, level: int, cgroup_id: int) -> None:
        self._words[layout.CONTROL_ROOT_LEVEL_WORD] = level
        self._quads[layout.CONTROL_ROOT_ID_QUAD] = cgroup_id

    def set_window(self, window_ns: int) -> None:
        """One event a key and window."""
        self._quads[layout.CONTROL_WINDOW_QUAD] = window_ns

    def set_flags(self, flags: int) -> None:
        """Set these CGN_CONTROL_* flags beside those that are set; only a flush takes one away."""
        self._words[layout.CONTROL_FLAGS_WORD] |= flags

    def set_netns(self, cookie: int) -> None:
        """Name the network namespace whose devices and addresses the live cells speak of."""
        self._quads[layout.CONTROL_NETNS_QUAD] = cookie

    def set_generation(self, slot: int, generation: int) -> None:
        """Name what is in a slot; 0: nothing. Labels of another generation are stale from here on."""
        self._words[layout.CONTROL_GENERATION_WORD + _slot(slot)] = generation

    def activate(self, slot: int) -> None:
        """Put a slot in force: one aligned 32-bit store, which every program reads once a call."""
        self._words[layout.CONTROL_ACTIVE_WORD] = _slot(slot)

    # -- slots --------------------------------------------------------------------------------------------------

    def write_slot(
        self,
        slot: int,
        cells: bytes | memoryview,
        index: bytes,
        rule_count: int,
        live: bytes | memoryview = b"",
        *,
        head: bytes = b"",
    ) -> None:
        """Fill a slot, which becomes generation 0 (empty) by it. ValueError for the slot in force.

        `cells`: the image, `live`: what its live cells begin with, both in whole 64-bit cells; `index`: the rule index;
        `rule_count`: ids 0 .. rule_count-1. `head`: what the image begins with in place of its own first bytes.
        """
        control = self.control()
        if control.active == _slot(slot) and control.generations[slot]:
            raise ValueError(f"slot {slot} is in force")
        with _failing(f"write slot {slot}"):
            if control.generations[slot]:
                wait_for_programs()  # one that read `active` before it changed still uses this slot
            self.set_generation(slot, 0)
            slots.write_tables(
                self.pin_dir, self._outer, slot, cells=cells, head=head, index=index, rule_count=rule_count, live=live
            )

    def clear_slot(self, slot: int) -> None:
        """Empty a slot. The one in force too: nothing is governed then."""
        with _failing(f"clear slot {slot}"):
            if self.control().active != _slot(slot):
                wait_for_programs()
            self.set_generation(slot, 0)
            wait_for_programs()
            slots.clear_tables(self.pin_dir, self._outer, slot)

    def slot(self, slot: int) -> SlotView:
        """What is in a slot; `.empty` if nothing is. The caller closes it."""
        with _failing(f"read slot {slot}"):
            return SlotView(self.pin_dir, self._outer, _slot(slot))

    def tables(self, slot: int, index: bytes) -> dict[str, Map]:
        """What is in a slot, as maps by the names of their pins, whether there are such pins or not; `index` is in it
        as far as anybody knows. The caller closes them. PinError if the slot lacks one."""
        with _failing(f"open the tables of slot {slot}"):
            return slots.tables_of(self._outer, _slot(slot), index)

    def live(self, slot: int) -> LiveTable:
        """The live cells of a slot, in force or not, to be read and written; the caller closes it. PinError: none."""
        with _failing(f"open live cells of slot {slot}"), slots.open_live(self._outer, _slot(slot)) as table:
            return LiveTable(table)

    def carry(self, slot: int, totals: list[int]) -> None:
        """Set what earlier generations had counted, [rule id * 2 + kind]; absolute, so it can be done again."""
        with _failing(f"carry counters into slot {slot}"):
            slots.write_carry(self._outer, _slot(slot), totals)

    # -- labels -------------------------------------------------------------------------------------------------

    def labels(self) -> dict[int, bytes]:
        """Every entry by cgroup id. Those that come or go meanwhile may be missing."""
        unpack = layout.LABEL_KEY.unpack
        with _failing("read labels"):
            return {unpack(key)[0]: entry for key, entry in lookup_all(self.maps["labels"])}

    def labelled(self) -> set[int]:
        """The ids of all that have an entry, as `labels`."""
        with _failing("read labels"):
            return {
                cgroup_id
                for keys in all_keys(self.maps["labels"])
                for (cgroup_id,) in layout.LABEL_KEY.iter_unpack(keys)
            }

    def label(self, cgroup_id: int) -> bytes | None:
        with _failing("read label"):
            return self.maps["labels"].lookup(layout.LABEL_KEY.pack(cgroup_id))

    def set_labels(self, entries: Mapping[int, bytes]) -> None:
        """KernelError if there is no room; some of the entries are set then. Verdicts given before are forgotten."""
        packed = {layout.LABEL_KEY.pack(cgroup_id): entry for cgroup_id, entry in entries.items()}
        labels = self.maps["labels"]
        try:
            update_many(labels, packed)
        except BpfError as error:
            if error.errno != errno.E2BIG:
                raise kernel_error("write labels", error) from error
            room = labels.info.max_entries
            raise KernelError(
                f"write labels: no room for more than {room} cgroups; raise limits.cgroups, flush and start again"
            ) from error
        finally:
            self._forget_verdicts()

    def delete_labels(self, cgroup_ids: Iterable[int]) -> int:
        """Absent ones are fine. Returns how many there were."""
        with _failing("delete labels"):
            gone = delete_many(self.maps["labels"], [layout.LABEL_KEY.pack(cgroup_id) for cgroup_id in cgroup_ids])
        self._forget_verdicts()
        return gone

    def _forget_verdicts(self) -> None:
        """After a write of labels: what the programs remember of earlier ones is stale from here on."""
        word = layout.CONTROL_EPOCH_WORD
        self._words[word] = (self._words[word] + 1) & 0xFFFFFFFF

    # -- events -------------------------------------------------------------------------------------------------

    def stats(self) -> tuple[int, ...]:
        """enum cgn_stat, each summed over the CPUs."""
        with _failing("read statistics"):
            rows = [self.maps["stats"].lookup(slots.key_of(stat)) or b"" for stat in range(layout.STAT_COUNT)]
        return tuple(sum(memoryview(row).cast("Q")) for row in rows)

    def ring(self, callback: Callable[[bytes], None]) -> RingBuffer:
        """The reader of the event ring; one at a time."""
        with _failing("open event ring"):
            return RingBuffer(self.maps["events"], callback)

    def drain_flows(self, idle_before_ns: int) -> list[bytes]:
        """Take out the flows not seen since `idle_before_ns` (CLOCK_BOOTTIME); records of calls not in any event yet.

        Flows with later calls stay: the programs report them. Each record is a struct cgn_flow_record.
        """
        records, left = [], Counter[int]()
        with _failing("read flows"):
            flows = self.maps["flows"]
            told = dict(lookup_all(self.maps["quotas"]))  # before the flows: whose are counted is found in there
            idle = []
            for key, value in lookup_all(flows):
                if _last_ns(value) < idle_before_ns:
                    idle.append(key)
                else:
                    left[layout.FLOW_KEY_CGROUP.unpack(key)[0]] += 1
            for key in idle:
                if (taken := flows.lookup_and_delete(key)) is not None:
                    records.append((key, taken))
            self._set_quotas(left, told)
        return [record for record in (_flow_record(key, value) for key, value in records) if record]

    def _set_quotas(self, left: Counter[int], told: dict[bytes, bytes]) -> None:
        """Tell the programs how many flows each cgroup has left, where they were told otherwise. Those that they make
        while this goes on are counted the next time: until then a cgroup may have some more than its share."""
        pack, unpack = layout.QUOTA_KEY.pack, layout.QUOTA_KEY.unpack
        counts = recount(left, {unpack(key)[0]: Quota(*layout.QUOTA.unpack(value)) for key, value in told.items()})
        wanted = {pack(cgroup_id): layout.QUOTA.pack(*quota) for cgroup_id, quota in counts.items()}
        quotas = self.maps["quotas"]
        delete_many(quotas, [key for key in told if key not in wanted])
        update_many(quotas, {key: value for key, value in wanted.items() if told.get(key, value) != value})

    # -- pins ---------------------------------------------------------------------------------------------------

    def lost_pins(self) -> tuple[str, ...]:
        """Pin names whose pin is gone or is not this store's map any more."""
        return tuple(spec.pin for spec in specs(Capacity()) if not self._is_pinned(spec.pin))

    def _is_pinned(self, pin: str) -> bool:
        try:
            with Map.from_pin(path_of(self.pin_dir, pin)) as found:
                return found.info.id == self.maps[pin].info.id
        except BpfError:
            return False

    def repair_pins(self) -> tuple[str, ...]:
        """Pin again what `lost_pins` tells. Returns those names. OutOfReachError if the pin directory is gone and
        cannot be made from here."""
        lost = self.lost_pins()
        if lost:
            bpffs.make_pin_dir(self.pin_dir)
        with _failing(f"repair pin directory {self.pin_dir}"):
            for pin in lost:
                path = path_of(self.pin_dir, pin)
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                pin_over(self.maps[pin], path)
        return lost

    def close(self) -> None:
        self._words.release()
        self._quads.release()
        self._control.close()
        for opened in self.maps.values():
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _failing(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kernel_error(action, error) from error


def _slot(slot: int) -> int:
    if not 0 <= slot < layout.SLOTS:
        raise ValueError(f"no slot {slot}")
    return slot


def _last_ns(value: bytes) -> int:
    return int(layout.FLOW_VALUE_HEAD.unpack_from(value)[4])


def _flow_record(key: bytes, value: bytes) -> bytes | None:
    count, reported, *_ = layout.FLOW_VALUE_HEAD.unpack_from(value)
    if count <= reported:
        return None
    return layout.FLOW_RECORD_HEAD.pack(layout.RECORD_FLOW, 0, count - reported) + key + value
