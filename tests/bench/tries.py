# SPDX-License-Identifier: Apache-2.0
"""What others look prefixes up in: a hash of single addresses, and the kernel's LPM tries. Must not measure."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.prefixes import BITS, Prefix
from pybpf import Map, MapFlag, MapType
from pybpf.batch import update_many

GROUP = 1  # LOOKUP_GROUP of bpf/lookup.bpf.c, and that of peers
_FOUND = struct.pack("=I", 1)
_HOST = struct.Struct("=IIQQ")
_MEMORY = re.compile(r"^memlock:\s*(\d+)$", re.M)
_LOW = (1 << 64) - 1


class Tries:
    """All prefixes, each with the value 1, in maps by the names that programs have for them. Needs closing."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        hosts = {_host_key(p): _FOUND for p in prefixes if p[2] == BITS[p[0]]}
        in_tries = [p for p in prefixes if p[2] < BITS[p[0]]]
        tries = {family: {_trie_key(p): _FOUND for p in in_tries if p[0] == family} for family in BITS}
        with ExitStack() as undo:
            self.maps = {
                "tries_hosts": undo.enter_context(_map(MapType.HASH, "hosts", _HOST.size, hosts)),
                "tries_trie4": undo.enter_context(_map(MapType.LPM_TRIE, "trie4", 12, tries[4])),
                "tries_trie6": undo.enter_context(_map(MapType.LPM_TRIE, "trie6", 24, tries[6])),
            }
            self._stack = undo.pop_all()

    def kernel_kib(self) -> int:
        """What the kernel counts as their memory."""
        told = (Path(f"/proc/self/fdinfo/{each.fd}").read_text(encoding="ascii") for each in self.maps.values())
        return sum(int(found.group(1)) for text in told if (found := _MEMORY.search(text))) // 1024

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()


def _map(kind: MapType, name: str, key_size: int, entries: Mapping[bytes, bytes]) -> Map:
    flags = MapFlag.NO_PREALLOC if kind is MapType.LPM_TRIE else MapFlag.NONE
    made = Map.create(kind, name, key_size=key_size, value_size=4, max_entries=max(1, len(entries)), flags=flags)
    update_many(made, entries)
    return made


def _host_key(prefix: Prefix) -> bytes:
    family, address, _ = prefix
    return _HOST.pack(GROUP, family, address >> 64, address & _LOW)


def _trie_key(prefix: Prefix) -> bytes:
    family, address, length = prefix
    return struct.pack("=II", 32 + length, GROUP) + address.to_bytes(BITS[family] // 8, "big")
