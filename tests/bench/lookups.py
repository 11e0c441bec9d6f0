# SPDX-License-Identifier: Apache-2.0
"""The programs of bpf/lookup.bpf.c, loaded over an image that is in force: keys in, nanoseconds out.

Must not know what the keys or the image mean.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.kernel import features
from cgnetd.kernel.maps import Capacity, specs
from cgnetd.kernel.store import Store
from pybpf import Map, Object, Program, ProgType

KEYS = 65_536  # looked up in a run
WAYS = {"classified": "lookup_classified", "judged": "lookup_judged", "lpm": "lookup_lpm"}  # name -> program
IDLE = "lookup_idle"
_KEY = struct.Struct("=QQHBB4x")
_PACKET = bytes(64)
_UDP = 1  # enum cgn_proto
_LOW = (1 << 64) - 1

Key = tuple[int, int]  # address and port


class Lookups:
    """Needs closing. `tries`: the maps of others, by name."""

    def __init__(self, object_path: Path, store: Store, tries: Mapping[str, Map], cgroup_id: int) -> None:
        with ExitStack() as undo:
            opened = undo.enter_context(Object(object_path))
            shared = {spec.name: store.maps[spec.pin] for spec in specs(Capacity())} | dict(tries)
            for name, found in opened.maps.items():
                if name in shared:
                    found.reuse(shared[name])
            known = features.probe().rodata()
            opened.set_rodata(known | {"lookup_cgroup": cgroup_id, "lookup_count": KEYS})
            for program in opened.programs.values():
                program.set_type(ProgType.SCHED_CLS, 0)
            opened.load()
            self.programs: dict[str, Program] = {
                name: undo.enter_context(program.open()) for name, program in opened.programs.items()
            }
            self._keys = undo.enter_context(opened.maps["lookup_keys"].open())
            variables = next(found for name, found in opened.maps.items() if name.endswith(".bss"))
            self._variables = undo.enter_context(variables.open())
            self._stack = undo.pop_all()

    def set_keys(self, family: int, keys: Sequence[Key]) -> None:
        """All that are looked up from now on, KEYS of them."""
        packed = b"".join(_KEY.pack(address >> 64, address & _LOW, port, family, _UDP) for address, port in keys)
        with self._keys.mmap(writable=True) as cells:
            cells.bytes[: len(packed)] = packed

    def run(self, program: str, repeat: int = 1) -> float:
        """Nanoseconds a key, that of the loop with it, mean of `repeat` runs."""
        return self.programs[program].test_run(_PACKET, repeat=repeat).duration_ns / KEYS

    def sum_of(self, program: str) -> int:
        """Of the answers to all keys."""
        self.run(program)
        value = self._variables.lookup(struct.pack("=I", 0))
        assert value
        return int(struct.unpack_from("=Q", value)[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
