# SPDX-License-Identifier: Apache-2.0
"""Slots: written, seen, put in force, cleared; and counters carried over."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.store import Store
from pybpf import BpfError, Map, possible_cpus

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

CELLS = array("Q", range(1000))
INDEX = b"names of rules" * 1001


def fill(store: Store, slot: int = 1, generation: int = 3, rule_count: int = 4) -> None:
    store.write_slot(slot, memoryview(CELLS), INDEX, rule_count)
    store.set_generation(slot, generation)


def test_written_slot_is_consistent_and_reads_back(store: Store) -> None:
    fill(store)
    with store.slot(1) as view:
        assert view.consistent
        assert view.image is not None
        assert view.image.tolist() == CELLS.tolist()
        assert view.image.readonly
        assert view.index == INDEX
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
            image.update(bytes(4), bytes(8))


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
    store.write_slot(1, bytes(16), b"", 1)
    assert store.control().generations == (0, 0)
    with store.slot(1) as view:
        assert view.consistent
        assert view.image is not None
        assert len(view.image) == 2
        assert view.index == b""


def test_cleared_slot_is_empty_twice(store: Store) -> None:
    fill(store)
    store.activate(1)
    for _ in range(2):
        store.clear_slot(1)
        assert store.slot(1).empty
        assert store.control().generations == (0, 0)
    assert list((store.pin_dir / "slots" / "1").iterdir()) == []


@pytest.mark.parametrize("name", ["image", "index", "counters"])
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


def test_emptied_slot_is_seen(store: Store) -> None:
    fill(store)
    store.maps["images"].delete((1).to_bytes(4, "little"))
    with store.slot(1) as view:
        assert view.image is None
        assert not view.empty
        assert not view.consistent


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
