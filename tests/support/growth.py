# SPDX-License-Identifier: Apache-2.0
"""How many entries every map of a store has, socket storage too. Must not know what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cgnetd.kernel.store import Store
from pybpf import Link, Map, MapType, Object, Program
from pybpf.batch import lookup_all

_TABLES = (MapType.HASH, MapType.LRU_HASH)


class Census:
    """Counts; `storage` is the built tests/kernel/bpf/storage.bpf.c."""

    def __init__(self, store: Store, program: Program) -> None:
        self._store = store
        self._program = program

    def entries(self) -> dict[str, int]:
        """Of each map that can grow, by its pin's name."""
        found = {}
        for name, counted in self._store.maps.items():
            if counted.info.type in _TABLES:
                found[name] = sum(1 for _ in lookup_all(counted))
            elif counted.info.type == MapType.SK_STORAGE:
                found[name] = self._storage(counted)
        return found

    def _storage(self, counted: Map) -> int:
        with Link.attach_iterator(self._program, over=counted) as link:
            return len(link.iterate())


@contextmanager
def census(store: Store, storage: Path) -> Iterator[Census]:
    with ExitStack() as stack:
        opened = stack.enter_context(Object(storage))
        opened.load()
        yield Census(store, stack.enter_context(opened.programs["storage_entries"].open()))
