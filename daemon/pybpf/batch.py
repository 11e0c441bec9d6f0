# SPDX-License-Identifier: Apache-2.0
"""Many entries of a hash or array map in few system calls (about 1 us an entry). Must not know what they mean."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator, Mapping, Sequence

from pybpf.errors import BpfError
from pybpf.lib import libbpf
from pybpf.map import Map

CHUNK = 4096  # entries a call
_CURSOR_BYTES = 64  # a bucket number for hash maps, a key for others


def lookup_all(source: Map, chunk: int = CHUNK) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value). Entries that come or go meanwhile may be missing; none comes twice unless made again."""
    key_size, value_size = source.info.key_size, source.value_bytes
    for count, keys, values in _chunks(source, chunk):
        for index in range(count):
            key = keys[index * key_size : (index + 1) * key_size]
            yield key, values[index * value_size : (index + 1) * value_size]


def all_keys(source: Map, chunk: int = CHUNK) -> Iterator[bytes]:
    """The keys of `lookup_all`, many in one: those of a chunk, one behind the other."""
    for count, keys, _ in _chunks(source, chunk):
        yield keys[: count * source.info.key_size]


def _chunks(source: Map, chunk: int) -> Iterator[tuple[int, bytes, bytes]]:
    """How many, their keys and their values, with something behind."""
    key_size, value_size = source.info.key_size, source.value_bytes
    cursor_in: ctypes.Array[ctypes.c_char] | None = None
    cursor_out = ctypes.create_string_buffer(max(_CURSOR_BYTES, key_size))
    more = True
    while more:
        keys = ctypes.create_string_buffer(key_size * chunk)
        values = ctypes.create_string_buffer(value_size * chunk)
        count = ctypes.c_uint32(chunk)
        try:
            libbpf().bpf_map_lookup_batch(source.fd, cursor_in, cursor_out, keys, values, ctypes.byref(count), None)
        except BpfError as error:
            if error.errno == errno.ENOSPC:  # one bucket holds more than the chunk
                chunk *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            more = False
        yield count.value, keys.raw, values.raw
        cursor_in = ctypes.create_string_buffer(cursor_out.raw)


def update_many(target: Map, entries: Mapping[bytes, bytes], chunk: int = CHUNK) -> None:
    """Set all entries; on an error (E2BIG: full) those before it are set."""
    items = list(entries.items())
    for start in range(0, len(items), chunk):
        part = items[start : start + chunk]
        keys = b"".join(key for key, _ in part)
        values = b"".join(value for _, value in part)
        if len(keys) != len(part) * target.info.key_size or len(values) != len(part) * target.value_bytes:
            raise ValueError(f"entries of map {target.info.name} have the wrong size")
        count = ctypes.c_uint32(len(part))
        libbpf().bpf_map_update_batch(target.fd, keys, values, ctypes.byref(count), None)


def delete_many(target: Map, keys: Sequence[bytes]) -> int:
    """Delete all these keys; absent ones are passed over. Returns how many there were."""
    deleted = 0
    position = 0
    while position < len(keys):
        part = keys[position : position + CHUNK]
        count = ctypes.c_uint32(len(part))
        try:
            libbpf().bpf_map_delete_batch(target.fd, b"".join(part), ctypes.byref(count), None)
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
            position += 1  # the absent one, at which the kernel stopped
        deleted += count.value
        position += count.value
    return deleted
