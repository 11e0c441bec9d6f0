# SPDX-License-Identifier: Apache-2.0
"""The pinned maps: made, adopted, refused, completed after a crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cgnetd.errors import KernelError, PinError
from cgnetd.kernel import layout, maps
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.maps import Capacity, MapSpec, specs
from cgnetd.kernel.store import Store
from pybpf import Map, MapType, Object
from support import sandbox

pytestmark = pytest.mark.usefixtures("no_fd_leaks")


def pins(pin_dir: Path) -> dict[str, int]:
    """Map id by path."""
    found = {}
    for path in sorted(pin_dir.rglob("*")):
        if not path.is_dir():
            with Map.from_pin(path) as pinned:
                found[str(path.relative_to(pin_dir))] = pinned.info.id
    return found


def make(pin_dir: Path, root: CgroupRoot) -> dict[str, int]:
    with Store.open(pin_dir, root, create=True):
        return pins(pin_dir)


def test_new_store_pins_every_map_and_governs_nothing(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        control = store.control()
        assert (control.active, control.generations) == (0, (0, 0))
        assert (control.root_id, control.root_level) == (cgroup_root.id, cgroup_root.level)
        assert (control.flags, control.netns) == (0, 0)
        assert store.labels() == {}
        assert store.stats() == (0,) * layout.STAT_COUNT
        assert store.slot(0).empty
        assert store.lost_pins() == ()
    names = {"meta", *(f"maps/{spec.pin}" for spec in specs(Capacity()) if spec.pin != "meta")}
    assert set(pins(pin_dir)) == names


def test_second_opening_adopts_the_same_maps(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        store.set_labels({7: b"x" * layout.LABEL_ENTRY_BYTES})
        store.set_window(5)
        before = pins(pin_dir)
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        assert pins(pin_dir) == before
        assert set(store.labels()) == {7}
        assert store.control().window_ns == 5


def test_flags_are_added_and_the_namespace_is_replaced(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        store.set_flags(1)
        store.set_flags(4)
        store.set_netns(2**63 + 5)
        store.set_netns(2**62 + 1)
        before = store.control()
    assert (before.flags, before.netns, before.epoch) == (5, 2**62 + 1, 0)
    assert before.root_id == cgroup_root.id
    with Store.open(pin_dir, cgroup_root, create=True) as again:
        assert again.control() == before


def test_pins_of_another_capacity_are_used_as_they_are(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(pin_dir, cgroup_root, create=True, capacity=Capacity(labels=100, flows=64)):
        before = pins(pin_dir)
    with Store.open(pin_dir, cgroup_root, create=True) as store:
        assert pins(pin_dir) == before
        assert store.maps["labels"].info.max_entries == 100


@pytest.mark.parametrize("lost", ["maps/labels", "maps/control", "meta", "maps/stamps"])
def test_lost_pin_is_made_again_and_the_others_stay(pin_dir: Path, cgroup_root: CgroupRoot, lost: str) -> None:
    before = make(pin_dir, cgroup_root)
    (pin_dir / lost).unlink()
    after = make(pin_dir, cgroup_root)
    assert set(after) == set(before)
    assert {path for path in before if after[path] != before[path]} == {lost}


def test_pin_lost_while_running_is_repaired_with_the_same_map(store: Store) -> None:
    before = pins(store.pin_dir)
    (store.pin_dir / "maps" / "labels").unlink()
    (store.pin_dir / "meta").unlink()
    with maps.create(next(spec for spec in specs(Capacity()) if spec.pin == "stats")) as foreign:
        (store.pin_dir / "maps" / "stats").unlink()
        foreign.pin(store.pin_dir / "maps" / "stats")
    assert set(store.lost_pins()) == {"labels", "meta", "stats"}
    assert set(store.repair_pins()) == {"labels", "meta", "stats"}
    assert pins(store.pin_dir) == before


@pytest.mark.parametrize("steps", range(6))
def test_crash_while_making_is_completed(pin_dir: Path, cgroup_root: CgroupRoot, steps: int) -> None:
    make(pin_dir, cgroup_root)
    (pin_dir / "meta").unlink()
    for path in sorted((pin_dir / "maps").iterdir())[steps:]:
        path.unlink()
    with maps.create(next(iter(specs(Capacity())))) as half:
        half.pin(pin_dir / "new_meta")
    after = make(pin_dir, cgroup_root)
    assert len(after) == len(specs(Capacity()))
    assert "new_meta" not in after


def test_other_abi_is_refused_and_nothing_touched(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    make(pin_dir, cgroup_root)
    (pin_dir / "meta").unlink()
    spec = next(spec for spec in specs(Capacity()) if spec.pin == "meta")
    with maps.create(spec) as meta:
        meta.update(bytes(4), layout.META.pack(layout.MAGIC, 99, 1, b"9.9"))
        meta.pin(pin_dir / "meta")
    before = pins(pin_dir)
    for create in (True, False):
        with pytest.raises(
            PinError, match=rf"99 \(cgnetd 9\.9\), this is ABI version {layout.ABI_VERSION} .*cgnetctl flush"
        ):
            Store.open(pin_dir, cgroup_root, create=create)
    assert pins(pin_dir) == before


def test_meta_without_our_magic_is_refused(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    make(pin_dir, cgroup_root)
    (pin_dir / "meta").unlink()
    with maps.create(next(spec for spec in specs(Capacity()) if spec.pin == "meta")) as meta:
        meta.pin(pin_dir / "meta")
    with pytest.raises(PinError, match="not of cgnetd"):
        Store.open(pin_dir, cgroup_root, create=True)


def test_map_of_another_shape_is_refused(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    make(pin_dir, cgroup_root)
    (pin_dir / "maps" / "labels").unlink()
    with maps.create(MapSpec("labels", MapType.HASH, 8, 64, 10)) as narrow:
        narrow.pin(pin_dir / "maps" / "labels")
    with pytest.raises(PinError, match="maps/labels: value size 64 instead of 128"):
        Store.open(pin_dir, cgroup_root, create=True)


def test_directory_of_somebody_else_is_refused(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    (pin_dir / "theirs").mkdir(parents=True)
    with pytest.raises(PinError, match="holds theirs, not made by cgnetd"):
        Store.open(pin_dir, cgroup_root, create=True)
    assert [path.name for path in pin_dir.iterdir()] == ["theirs"]


def test_top_of_a_bpffs_serves_too(bpffs: Path, cgroup_root: CgroupRoot) -> None:
    with Store.open(bpffs, cgroup_root, create=True) as store:
        assert store.lost_pins() == ()
    with Store.open(bpffs, cgroup_root, create=False) as store:
        assert store.lost_pins() == ()


def test_opening_without_create_changes_nothing(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    with pytest.raises(PinError, match="nothing is pinned there"):
        Store.open(pin_dir, cgroup_root, create=False)
    assert not pin_dir.exists()
    before = make(pin_dir, cgroup_root)
    (pin_dir / "maps" / "flows").unlink()
    with pytest.raises(PinError, match="maps/flows is missing"):
        Store.open(pin_dir, cgroup_root, create=False)
    assert set(before) - set(pins(pin_dir)) == {"maps/flows"}


def test_place_that_is_no_bpffs_is_refused_with_advice(tmp_path: Path, cgroup_root: CgroupRoot) -> None:
    with pytest.raises(PinError, match="not on a bpffs; choose one below /sys/fs/bpf"):
        Store.open(tmp_path / "cgnetd", cgroup_root, create=True)
    with pytest.raises(PinError, match="not a directory; choose one"):
        Store.open(tmp_path / "a" / "b", cgroup_root, create=True)
    assert list(tmp_path.iterdir()) == []


def test_read_only_bpffs_is_refused_with_advice(cgroup_root: CgroupRoot) -> None:
    with (
        sandbox.bpffs_mount(flags=os.ST_RDONLY) as point,
        pytest.raises(PinError, match="read-only; mount -o remount,rw"),
    ):
        Store.open(point / "cgnetd", cgroup_root, create=True)


def test_name_with_a_dot_is_refused_with_the_reason(bpffs: Path, cgroup_root: CgroupRoot) -> None:
    with pytest.raises(PinError, match="cannot hold a dot"):
        Store.open(bpffs / "cgnetd.d", cgroup_root, create=True)


def test_labels_come_back_and_go(store: Store) -> None:
    wanted = {number: number.to_bytes(8, "little") * 16 for number in range(1, 5000)}
    store.set_labels(wanted)
    assert store.labels() == wanted
    assert store.label(4) == wanted[4]
    assert store.label(9999) is None
    assert store.delete_labels([1, 2, 9999]) == 2
    assert set(wanted) - set(store.labels()) == {1, 2}


def test_full_label_map_says_which_limit(pin_dir: Path, cgroup_root: CgroupRoot) -> None:
    entry = bytes(layout.LABEL_ENTRY_BYTES)
    with (
        Store.open(pin_dir, cgroup_root, create=True, capacity=Capacity(labels=10)) as store,
        pytest.raises(KernelError, match=r"no room for more than 10 cgroups; raise limits\.cgroups"),
    ):
        store.set_labels(dict.fromkeys(range(11), entry))


def test_idle_flows_are_taken_out_with_what_was_not_told(store: Store) -> None:
    def value(count: int, reported: int, last_ns: int) -> bytes:
        head = layout.FLOW_VALUE_HEAD.pack(count, reported, 0, 0, last_ns)
        return head.ljust(layout.FLOW_VALUE_BYTES, b"\1")

    flows = store.maps["flows"]
    keys = [bytes([number]) * layout.FLOW_KEY_BYTES for number in range(3)]
    flows.update(keys[0], value(5, 2, last_ns=100))  # idle, three calls not told
    flows.update(keys[1], value(5, 5, last_ns=100))  # idle, all told
    flows.update(keys[2], value(5, 2, last_ns=1000))  # not idle
    (record,) = store.drain_flows(idle_before_ns=500)
    assert record == layout.FLOW_RECORD_HEAD.pack(1, 0, 3) + keys[0] + value(5, 2, last_ns=100)
    assert list(flows.keys()) == [keys[2]]


def test_statistics_are_summed_over_the_cpus(store: Store) -> None:
    stats = store.maps["stats"]
    rows = stats.value_bytes // 8
    stats.update((1).to_bytes(4, "little"), b"".join(number.to_bytes(8, "little") for number in range(1, rows + 1)))
    assert store.stats() == (0, sum(range(1, rows + 1)), 0, 0, 0, 0)


def test_maps_equal_those_of_the_programs(objects: Path) -> None:
    files = sorted(objects.glob("*.bpf.o"))
    assert files
    for path in files:
        with Object(path) as opened:
            for spec in specs(Capacity()):
                found = opened.maps[spec.name]
                actual = (found.type, found.key_size, found.value_size, found.max_entries, found.flags)
                wanted = (spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
                assert actual == wanted, f"{path.name}: {spec.name}"
                if spec.table_bytes:
                    table = maps.table_spec("template", 1, spec.table_bytes)
                    assert found.inner is not None
                    assert maps.difference(table, found.inner) == ""


def test_layout_equals_the_contract(compile_c: Callable[[str], list[int]]) -> None:
    fields = compile_c(
        """
        CGN_MAGIC, CGN_ABI_VERSION, CGN_SLOTS, sizeof(struct cgn_meta), sizeof(struct cgn_control),
        offsetof(struct cgn_control, active) / 4, offsetof(struct cgn_control, generation) / 4,
        offsetof(struct cgn_control, root_level) / 4, offsetof(struct cgn_control, root_id) / 8,
        offsetof(struct cgn_control, window_ns) / 8, offsetof(struct cgn_control, epoch) / 4,
        offsetof(struct cgn_control, flags) / 4, offsetof(struct cgn_control, netns) / 8,
        sizeof(struct cgn_entry), CGN_COUNT_KINDS, CGN_STAT_COUNT,
        sizeof(struct cgn_flow_key), sizeof(struct cgn_flow_value), offsetof(struct cgn_flow_value, last_ns),
        sizeof(struct cgn_flow_record), offsetof(struct cgn_flow_record, key), CGN_RECORD_FLOW,
        sizeof(struct cgn_view), sizeof(struct cgn_peers), sizeof(struct cgn_origin)
        """
    )
    assert fields == [
        *(layout.MAGIC, layout.ABI_VERSION, layout.SLOTS, layout.META.size, layout.CONTROL.size),
        *(layout.CONTROL_ACTIVE_WORD, layout.CONTROL_GENERATION_WORD),
        *(layout.CONTROL_ROOT_LEVEL_WORD, layout.CONTROL_ROOT_ID_QUAD),
        *(layout.CONTROL_WINDOW_QUAD, layout.CONTROL_EPOCH_WORD, layout.CONTROL_FLAGS_WORD, layout.CONTROL_NETNS_QUAD),
        *(layout.LABEL_ENTRY_BYTES, layout.COUNTER_KINDS, layout.STAT_COUNT),
        *(layout.FLOW_KEY_BYTES, layout.FLOW_VALUE_BYTES, layout.FLOW_VALUE_HEAD.size - 8),
        layout.FLOW_RECORD_HEAD.size + layout.FLOW_KEY_BYTES + layout.FLOW_VALUE_BYTES,
        *(layout.FLOW_RECORD_HEAD.size, layout.RECORD_FLOW),
        *(layout.VIEW_BYTES, layout.PEERS_BYTES, layout.ORIGIN_BYTES),
    ]
