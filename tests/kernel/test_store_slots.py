# SPDX-License-Identifier: Apache-2.0
"""Slots: written, seen, put in force, cleared; and counters carried over."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from cgnetd.errors import PinError
from cgnetd.kernel import layout
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.store import Store
from pybpf import BpfError, Map, possible_cpus

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

BLOCK = layout.BLOCK_BYTES // layout.CELL_BYTES
CELLS = array("Q", range(2 * BLOCK))
INDEX = b"names of rules" * 1001
LIVE = array("Q", [7, 0, 2**64 - 1])


def fill(store: Store, slot: int = 1, generation: int = 3, rule_count: int = 4) -> None:
    store.write_slot(slot, memoryview(CELLS), INDEX, rule_count, memoryview(LIVE))
    store.set_generation(slot, generation)


def test_written_slot_is_consistent_and_reads_back(store: Store) -> None:
    fill(store)
    with store.slot(1) as view:
        assert view.consistent
        assert view.image is not None
        assert view.image.tolist() == CELLS.tolist()
        assert view.image.readonly
        assert view.index == INDEX
        assert view.live is not None
        assert view.live.tolist() == LIVE.tolist()
        assert view.live.readonly
        assert view.rule_count == 4
        assert view.totals() == [0] * 8
    with store.slot(0) as other:
        assert other.empty
        assert not other.consistent


def test_image_cannot_be_changed_any_more(store: Store) -> None:
    fill(store)
    with Map.from_pin(store.pin_dir / "slots" / "1" / "image") as image:
        with pytest.raises(PermissionError):
            image.mmap(writable=True)
        with pytest.raises(BpfError):
            image.update(bytes(4), bytes(layout.BLOCK_BYTES))


def test_slot_survives_the_store(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        fill(store)
        store.activate(1)
    with Store.open(pin_dir, cgroup_root, create=True) as again, again.slot(1) as view:
        assert again.control().active == 1
        assert again.control().generations == (0, 3)
        assert view.consistent
        assert view.index == INDEX


def test_slot_in_force_is_not_written(store: Store) -> None:
    fill(store)
    store.activate(1)
    with pytest.raises(ValueError, match="in force"):
        store.write_slot(1, bytes(8), b"", 1)
    with pytest.raises(ValueError, match="no slot 2"):
        store.activate(2)


def test_writing_again_replaces_and_empties_the_generation(store: Store) -> None:
    fill(store)
    store.write_slot(1, bytes(16), b"", 1)  # a whole block then
    assert store.control().generations == (0, 0)
    with store.slot(1) as view:
        assert view.consistent
        assert view.image is not None
        assert len(view.image) == BLOCK
        assert view.index == b""


def test_cleared_slot_is_empty_twice(store: Store) -> None:
    fill(store)
    store.activate(1)
    for _ in range(2):
        store.clear_slot(1)
        assert store.slot(1).empty
        assert store.control().generations == (0, 0)
    assert list((store.pin_dir / "slots" / "1").iterdir()) == []


@pytest.mark.parametrize("name", ["image", "index", "counters", "live"])
def test_lost_pin_of_a_table_is_seen(store: Store, name: str) -> None:
    fill(store)
    (store.pin_dir / "slots" / "1" / name).unlink()
    with store.slot(1) as view:
        assert not view.consistent
        assert (view.index is None) == (name == "index")
        assert view.image is not None
    fill(store)
    with store.slot(1) as view:
        assert view.consistent


def test_foreign_table_in_the_slot_is_seen(store: Store) -> None:
    fill(store, slot=0)
    fill(store, slot=1)
    with Map.from_pin(store.pin_dir / "slots" / "0" / "image") as other:
        store.maps["images"].update((1).to_bytes(4, "little"), other.fd.to_bytes(4, "little"))
    with store.slot(1) as view:
        assert not view.consistent


@pytest.mark.parametrize(("tables", "name"), [("images", "image"), ("counters", "counters"), ("live", "live")])
def test_emptied_slot_is_seen(store: Store, tables: str, name: str) -> None:
    fill(store)
    store.maps[tables].delete((1).to_bytes(4, "little"))
    with store.slot(1) as view:
        assert getattr(view, name) is None
        assert not view.empty
        assert not view.consistent


def test_live_cells_are_written_while_the_slot_is_in_force(store: Store) -> None:
    fill(store)
    store.activate(1)
    with store.live(1) as live, store.slot(1) as view:
        assert view.live is not None
        assert live.cells() == LIVE
        live.set(1, 99)
        assert view.live.tolist() == [7, 99, 2**64 - 1]
        assert live.write(array("Q", [7, 5, 6])) == 2
        assert live.write([7, 5, 6]) == 0
        assert view.live.tolist() == [7, 5, 6]
        assert view.consistent


def test_live_cells_outlive_the_daemon(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        fill(store)
        with store.live(1) as live:
            live.set(0, 1)
    with Store.open(pin_dir, cgroup_root, create=True) as again, again.live(1) as live:
        assert live.cells().tolist() == [1, 0, 2**64 - 1]


def test_what_does_not_fit_the_live_table_is_refused(store: Store) -> None:
    fill(store)
    with store.live(1) as live:
        for cell in (-1, len(LIVE)):
            with pytest.raises(IndexError):
                live.set(cell, 1)
        for value in (-1, 2**64):
            with pytest.raises(ValueError, match="memoryview"):
                live.set(0, value)
        with pytest.raises(ValueError, match="2 cells for a table of 3"):
            live.write([1, 2])
        assert live.cells() == LIVE
    with pytest.raises(ValueError, match="released"):
        live.cells()
    with pytest.raises(PinError, match="slot 0: it has none"):
        store.live(0)


def test_open_live_table_of_a_written_slot_is_nobodys(store: Store) -> None:
    fill(store)
    with store.live(1) as old:
        fill(store, generation=4)
        old.set(0, 1)
        with store.slot(1) as view:
            assert view.live is not None
            assert view.live.tolist() == LIVE.tolist()


def test_slot_without_live_cells_is_whole(store: Store) -> None:
    store.write_slot(1, bytes(8), b"", 1)
    with store.slot(1) as view:
        assert view.consistent


def test_counters_of_all_rows_are_summed_and_carried(store: Store) -> None:
    fill(store, rule_count=3)
    with store.slot(1) as view:
        assert view.counters is not None
        assert len(view.counters) == (possible_cpus() + 1) * 3 * 2
    with (
        Map.from_pin(store.pin_dir / "slots" / "1" / "counters") as counters,
        counters.mmap(writable=True) as memory,
        memory.words() as words,
    ):
        for row in range(possible_cpus()):
            words[row * 6 + 5] = 10
        assert words[-1] == 0
    for _ in range(2):  # absolute, not added
        store.carry(1, [1, 2, 3, 4, 5, 6])
    with store.slot(1) as view:
        assert view.totals() == [1, 2, 3, 4, 5, 6 + 10 * possible_cpus()]
    with pytest.raises(ValueError, match="totals"):
        store.carry(1, [1])
