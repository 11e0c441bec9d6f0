# SPDX-License-Identifier: Apache-2.0
"""Maps of the bindings on the running kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybpf import BpfError, Map, MapFlag, MapType, Update, possible_cpus
from pybpf.batch import delete_many, lookup_all, update_many

pytestmark = pytest.mark.usefixtures("no_fd_leaks")


def key(number: int) -> bytes:
    return number.to_bytes(8, "little")


@pytest.fixture
def table() -> Iterator[Map]:
    with Map.create(MapType.HASH, "t_hash", key_size=8, value_size=4, max_entries=20_000) as made:
        yield made


@pytest.fixture
def cells() -> Iterator[Map]:
    with Map.create(
        MapType.ARRAY, "t_cells", key_size=4, value_size=8, max_entries=100, flags=MapFlag.MMAPABLE
    ) as made:
        yield made


def test_entry_set_is_found_and_deleted_once(table: Map) -> None:
    assert table.lookup(key(1)) is None
    table.update(key(1), b"abcd")
    assert table.lookup(key(1)) == b"abcd"
    assert table.delete(key(1))
    assert not table.delete(key(1))
    assert table.lookup_and_delete(key(1)) is None


def test_lookup_and_delete_takes_the_entry(table: Map) -> None:
    table.update(key(1), b"abcd")
    assert table.lookup_and_delete(key(1)) == b"abcd"
    assert table.lookup(key(1)) is None


def test_update_flags_are_the_kernels(table: Map) -> None:
    table.update(key(1), b"abcd", Update.NOEXIST)
    with pytest.raises(BpfError) as caught:
        table.update(key(1), b"abcd", Update.NOEXIST)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.call == "bpf_map_update_elem"


def test_wrong_sizes_never_reach_the_kernel(table: Map) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        table.update(key(1), b"abc")
    with pytest.raises(ValueError, match="8 bytes"):
        table.lookup(b"abc")
    with pytest.raises(ValueError, match="wrong size"):
        update_many(table, {b"a": b"abcd"})


def test_batches_cover_more_than_one_chunk(table: Map) -> None:
    wanted = {key(number): number.to_bytes(4, "little") for number in range(10_001)}
    update_many(table, wanted)
    assert dict(lookup_all(table)) == wanted
    assert sorted(table.keys()) == sorted(wanted)


def test_small_chunks_grow_to_the_fullest_bucket(table: Map) -> None:
    wanted = {key(number): b"abcd" for number in range(5_000)}
    update_many(table, wanted)
    assert dict(lookup_all(table, chunk=1)) == wanted


def test_batch_lookup_of_an_empty_map_is_empty(table: Map) -> None:
    assert list(lookup_all(table)) == []


def test_batch_delete_passes_over_absent_keys(table: Map) -> None:
    update_many(table, {key(number): b"abcd" for number in range(0, 10_000, 2)})
    assert delete_many(table, [key(number) for number in range(10_000)]) == 5_000
    assert list(table.keys()) == []


def test_batch_update_of_a_full_map_says_so() -> None:
    with Map.create(MapType.HASH, "t_full", key_size=8, value_size=4, max_entries=10) as table:
        with pytest.raises(BpfError) as caught:
            update_many(table, {key(number): b"abcd" for number in range(11)})
        assert caught.value.errno == errno.E2BIG


def test_per_cpu_value_has_a_row_a_cpu() -> None:
    with Map.create(MapType.PERCPU_ARRAY, "t_cpu", key_size=4, value_size=8, max_entries=1) as table:
        table.update(bytes(4), b"".join(key(cpu + 1) for cpu in range(possible_cpus())))
        value = table.lookup(bytes(4))
    assert value is not None
    assert sum(memoryview(value).cast("Q")) == sum(range(1, possible_cpus() + 1))


def test_memory_is_the_map(cells: Map) -> None:
    with cells.mmap(writable=True) as memory, memory.words() as words:
        words[7] = 77
        assert cells.lookup((7).to_bytes(4, "little")) == key(77)
        cells.update((8).to_bytes(4, "little"), key(88))
        assert words[8] == 88


def test_frozen_map_is_read_only(cells: Map) -> None:
    with cells.mmap(writable=True) as memory:
        memory.bytes[:8] = key(5)
        with pytest.raises(BpfError) as caught:
            cells.freeze()
        assert caught.value.errno == errno.EBUSY
    cells.freeze()
    with pytest.raises(PermissionError):
        cells.mmap(writable=True)
    with pytest.raises(BpfError):
        cells.update(bytes(4), key(1))
    with cells.mmap() as memory:
        assert bytes(memory.bytes[:8]) == key(5)
        with pytest.raises(TypeError):
            memory.bytes[0] = 1


def test_inner_maps_of_different_sizes_fit_one_outer() -> None:
    def inner(entries: int) -> Map:
        flags = MapFlag.MMAPABLE | MapFlag.INNER_MAP
        return Map.create(MapType.ARRAY, "t_in", key_size=4, value_size=8, max_entries=entries, flags=flags)

    with (
        inner(1) as template,
        inner(1000) as large,
        Map.create(MapType.ARRAY_OF_MAPS, "t_out", key_size=4, value_size=4, max_entries=2, inner=template) as outer,
    ):
        outer.update(bytes(4), large.fd.to_bytes(4, "little"))
        assert outer.lookup(bytes(4)) == large.info.id.to_bytes(4, "little")
        with Map.from_id(large.info.id) as again:
            assert again.info == large.info


def test_socket_storage_gets_its_types() -> None:
    with Map.create(
        MapType.SK_STORAGE, "t_sk", key_size=4, value_size=24, max_entries=0, flags=MapFlag.NO_PREALLOC
    ) as storage:
        assert storage.info.value_size == 24


def test_pinned_map_is_the_same_map(table: Map, bpffs: Path) -> None:
    table.pin(bpffs / "here")
    with Map.from_pin(bpffs / "here") as again:
        assert again.info == table.info


def test_opening_an_absent_pin_names_the_call(bpffs: Path) -> None:
    with pytest.raises(BpfError, match=r"bpf_obj_get: No such file") as caught:
        Map.from_pin(bpffs / "nothing")
    assert caught.value.errno == errno.ENOENT


def test_closed_map_is_refused(table: Map) -> None:
    table.close()
    table.close()
    with pytest.raises(ValueError, match="closed"):
        table.lookup(key(1))


def test_forgotten_map_closes_its_descriptor() -> None:
    fd = Map.create(MapType.ARRAY, "t_lost", key_size=4, value_size=8, max_entries=1).fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
