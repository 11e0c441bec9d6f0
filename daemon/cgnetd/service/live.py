# SPDX-License-Identifier: Apache-2.0
"""What is alive and present now, written into the live tables of the slots: at once when it changes, and compared on
every pass.

Must not know what else follows from a change, nor when passes are made.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from cgnetd.datapath import abi
from cgnetd.datapath.live import Live
from cgnetd.errors import KernelError
from cgnetd.kernel.store import Store
from cgnetd.service.generation import Generation
from cgnetd.service.health import Board, Target, places, targets
from cgnetd.service.host import Host


class LiveTables:
    """Keeps the tables as they should be. `host` and `board` say what is. Needs closing."""

    def __init__(self) -> None:
        self.host = Host()
        self.board = Board()
        self.unprobed = ""  # why nobody is probed now, though somebody should be
        self._written: dict[int, tuple[int, array[int]]] = {}  # by slot: generation, and what was written last

    @property
    def unprobed_texts(self) -> tuple[str, ...]:
        """What is waited for because of it, as `status` shows it."""
        why = self.unprobed
        return (f"waiting for probes of backends, which stay what they are: {why}",) if why else ()

    def follow(self, generations: Iterable[Live]) -> None:
        """Watch what these speak of, and nothing else. KernelError if the host cannot be asked."""
        known = tuple(generations)
        self.board.follow(target for live in known for target in targets(live))
        self.host.want(any(live.devices or live.sources for live in known))
        self.host.read()

    def adopt(self, store: Store, slot: int, live: Live) -> None:
        """Take from the table in force which backends were alive when nobody looked. KernelError."""
        with store.live(slot) as table:
            cells = table.cells()
        dead: set[Target | None] = {
            place.target for place in places(live) if place.state_cell < len(cells) and not cells[place.state_cell]
        }
        self.board.follow((*self.board.targets, *targets(live)), was_alive=lambda target: target not in dead)

    def cells(self, live: Live) -> array[int]:
        """What the table of a generation should hold now."""
        alive = {
            (place.service.name, place.family, place.index): place.target is None
            or self.board.pulse(place.target).alive
            for place in places(live)
        }
        return live.cells(
            device_index=self.host.devices(),
            present=self.host.present(live.sources),
            alive=lambda service, family, index: alive[service, family, index],
        )

    def written(self, slot: int, generation: int, cells: array[int]) -> None:
        """A slot was written with these cells."""
        self._written[slot] = (generation, cells)

    def sync(self, store: Store, slots: Sequence[Generation | None]) -> tuple[str, ...]:
        """Make every table right. Returns what somebody else had changed, as sentences. KernelError."""
        found = []
        for slot, generation in enumerate(slots):
            if generation is None or not generation.index.live.size:
                self._written.pop(slot, None)
                continue
            foreign = self._sync_slot(store, slot, generation)
            if foreign:
                found.append(f"set {foreign} live cells of slot {slot}")
        return tuple(found)

    def _sync_slot(self, store: Store, slot: int, generation: Generation) -> int:
        """How many cells held what was never written there."""
        wanted = self.cells(generation.index.live)
        known = self._written.get(slot)
        before = known[1] if known is not None and known[0] == generation.number else None
        with store.live(slot) as table:
            found = table.cells()
            if len(found) != len(wanted):
                raise KernelError(f"write live cells of slot {slot}: {len(found)} instead of {len(wanted)}")
            table.write(wanted)
        self.written(slot, generation.number, wanted)
        if before is None:
            return 0
        return sum(is_now != was for is_now, was in zip(found, before, strict=True))

    def shares(self, store: Store, slot: int, live: Live) -> dict[tuple[str, int, int], float]:
        """The part of new calls that each backend gets, by (service, family, index). KernelError."""
        with store.live(slot) as table:
            cells = table.cells()
        return {
            (service.name, number, index): _share(cells, family.choices, index)
            for service in live.services
            for number, family in service.families()
            for index in range(len(family.backends))
        }

    def reset(self) -> None:
        """Forget everything: the tables are gone."""
        self.follow(())
        self._written.clear()

    def close(self) -> None:
        self.host.close()


def _share(cells: array[int], choices: int, index: int) -> float:
    return cells[choices : choices + abi.CHOICES].count(index + 1) / abi.CHOICES
