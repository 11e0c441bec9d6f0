# SPDX-License-Identifier: Apache-2.0
"""A generation as a value: cells, rule index, number; read back from a slot or about to be put into one.

Must not know how generations are swapped.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image, image_digest
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import label_basis
from cgnetd.datapath.reader import CorruptImageError
from cgnetd.datapath.rules import RuleIndex
from cgnetd.kernel.slots import SlotView

_LAST_NUMBER = 2**32 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """`cells` are the process's own, and any number stands in them: generations share those of their image. `image_id`:
    the kernel's id of the map that they were put into, 0 before."""

    number: int
    index: RuleIndex
    cells: array[int]
    reader: ImageReader
    image_id: int = 0

    @property
    def digest(self) -> str:
        return self.index.digest

    @property
    def head(self) -> bytes:
        """What the image of this generation has in place of its first cells: its own number among them."""
        own = self.cells[: abi.IMAGE_HEADER]
        own[abi.IMAGE_DEFAULT] = abi.cell(self.number, abi.lo(own[abi.IMAGE_DEFAULT]))
        return own.tobytes()

    @property
    def label_basis(self) -> bytes:
        """Generations with equal ones give every cgroup the same label, but for the number."""
        return label_basis(self.cells)


def next_number(*taken: int) -> int:
    """The number after the highest of these; 1 after 2^32 - 1, for 0 means "empty"."""
    highest = max(taken, default=0)
    return 1 if highest >= _LAST_NUMBER else highest + 1


def is_older(number: int, other: int) -> bool:
    """Whether a generation came before another one, as far as numbers that begin again can tell."""
    return 0 < (other - number) % 2**32 < 2**31


def of_image(image: Image, number: int) -> Generation:
    """A compiled image under a number."""
    return Generation(number, image.index.with_generation(number), image.cells, ImageReader(image.cells))


def renumbered(generation: Generation, number: int) -> Generation:
    """The same content under another number."""
    return Generation(number, generation.index.with_generation(number), generation.cells, generation.reader)


def read_generation(view: SlotView) -> Generation | None:
    """What is in a slot, checked against its digest; None if it is empty or not what it says it is."""
    if view.image is None or view.index is None:
        return None
    cells = array("Q")
    cells.frombytes(view.image.tobytes())
    reader = ImageReader(cells)
    try:
        index = RuleIndex.from_bytes(view.index)
        reader.check()
        number = reader.generation
    except (ValueError, CorruptImageError):
        return None
    if index.digest != image_digest(cells, index) or index.generation != number or not number:
        return None
    return Generation(number, index, cells, reader, view.image_id)
