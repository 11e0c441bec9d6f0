# SPDX-License-Identifier: Apache-2.0
"""Reading a compiled image the way the programs in the kernel do: cells, bisection, tables, rules, states.

The counterpart of bpf/image.bpf.h. Every read can fail, and a failure means that the image cannot be right. Must not
know of chains or verdicts.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from cgnetd.datapath import abi
from cgnetd.errors import CgnetdError

WORD = 0xFFFFFFFF  # offsets are sums of unsigned 32-bit numbers, as in the kernel
LOW = 0xFFFFFFFFFFFFFFFF


class CorruptImageError(CgnetdError):
    """An image that cannot be right. The programs in the kernel deny where they meet one."""


class CellReader:
    """Reads an image in place. `cells`: an array("Q"), or any buffer of whole 64-bit cells in host byte order."""

    def __init__(self, cells: array[int] | bytes | bytearray | memoryview) -> None:
        self._cells = memoryview(cells).cast("B").cast("Q")
        self._halves = memoryview(cells).cast("B").cast("I")
        self._known_steps: dict[tuple[int, int], int] = {}  # (state, byte) -> state, as far as asked for

    def cell(self, index: int) -> int:
        """One cell. CorruptImageError beyond the end, as of all that follow."""
        index &= WORD
        if index >= len(self._cells):
            raise CorruptImageError(f"read image: cell {index} is beyond its {len(self._cells)} cells")
        return self._cells[index]

    @property
    def generation(self) -> int:
        return abi.hi(self.cell(abi.IMAGE_DEFAULT))

    @property
    def policy_count(self) -> int:
        return abi.hi(self.cell(abi.IMAGE_COUNTS))

    @property
    def rule_count(self) -> int:
        """Built-in rules included."""
        return abi.lo(self.cell(abi.IMAGE_COUNTS))

    def check(self) -> None:
        """CorruptImageError unless this is an image of this ABI, as long as it says."""
        if self.cell(abi.IMAGE_MAGIC) != abi.cell(abi.MAGIC, abi.ABI_VERSION):
            raise CorruptImageError("read image: not an image of this ABI version")
        if self.cell(abi.IMAGE_SIZE) != len(self._cells):
            raise CorruptImageError("read image: it is not as long as its header says")

    def header(self, policy_id: int) -> int:
        """Where the header of a policy stands."""
        if policy_id >= self.policy_count:
            raise CorruptImageError(f"read image: there is no policy {policy_id}")
        return abi.IMAGE_HEADER + policy_id * abi.POLICY_CELLS

    def tier(self, policy_id: int) -> int:
        """abi.TIER_* of a policy."""
        return abi.lo(self.cell(self.header(policy_id) + abi.POLICY_FLAGS))

    def row(self, blob: int, node: int, high: int, low: int) -> int:
        """The row of an address, whose first bit is the top one of `high`, in the table that begins with `node`."""
        for _ in range(abi.TABLE_LISTS):
            node = self._indexed(blob, node, high)
            size = abi.lo(node)
            if not size:
                return abi.hi(node) - 1 & WORD
            if size & abi.NODE_DENSE:
                return self._dense_row(blob, node, high)
            skip, count = size >> abi.NODE_SHIFT & 31, size & (1 << abi.NODE_SHIFT) - 1
            if skip > abi.TABLE_SKIP:
                raise CorruptImageError(f"read image: a list behind {skip} bits")
            wanted = high << skip & LOW | 2 * abi.TABLE_STEP - 1
            entry = self._bisect_entries(self.cell, blob + abi.hi(node), count, wanted, abi.TABLE_STEP)
            spans = size & abi.NODE_SPANS
            answer = _covered(entry, wanted, abi.TABLE_STEP) if spans else entry & abi.TABLE_STEP - 1
            if not answer & abi.TABLE_MORE:
                return answer
            node = self.cell(blob + (answer & ~abi.TABLE_MORE))
            rest = (high << 64 | low) << skip + abi.TABLE_KEY_BITS
            high, low = rest >> 64 & LOW, rest & LOW
        raise CorruptImageError("read image: an address table has more lists than an address")

    def _dense_row(self, blob: int, node: int, high: int) -> int:
        """The row of an address, which begins with `high`, in a dense list."""
        size, span = abi.lo(node), abi.hi(node)
        count, step = size & (1 << abi.DENSE_SHIFT) - 1, 1 << (size >> abi.DENSE_SHIFT & 31)
        wanted = high << (size >> abi.NODE_SHIFT & 31) >> 32 & WORD | 2 * step - 1
        if count:
            span = self._bisect_entries(self._half, 2 * blob + span, count, wanted, step)
        return _covered(span, wanted, step)

    def _bisect_entries(self, read: Callable[[int], int], first: int, count: int, wanted: int, step: int) -> int:
        """The last of `count` entries that begins at or before `wanted`; else the first."""
        for _ in range(abi.BISECT_STEPS):
            if count <= 1:
                break
            half = count >> 1
            entry = read(first + half)
            first, count = (first + half, count - half) if entry & entry - step <= wanted else (first, half)
        if count != 1:
            raise CorruptImageError("read image: a list is empty, or too long")
        return read(first)

    def _half(self, index: int) -> int:
        """A half of a cell; `index` counts halves, in the order of memory."""
        index &= WORD
        self.cell(index >> 1)
        return self._halves[index]

    def _indexed(self, blob: int, node: int, high: int) -> int:
        """The list or row that indexes lead to."""
        for _ in range(abi.TABLE_INDEXES):
            if not abi.lo(node) & abi.NODE_INDEX:
                break
            position, bits = abi.lo(node) >> abi.NODE_SHIFT & 63, abi.lo(node) & 31
            node = self.cell(blob + abi.hi(node) + ((high << position & LOW) >> 64 - bits))
        if abi.lo(node) & abi.NODE_INDEX:
            raise CorruptImageError("read image: too many indexes follow each other")
        return node

    def bisect(self, first: int, count: int, wanted: int) -> int:
        """The last of `count` sorted cells, from `first` on, that is at most `wanted`."""
        for _ in range(abi.BISECT_STEPS):
            if count <= 1:
                break
            half = count >> 1
            if self.cell(first + half) <= wanted:
                first, count = first + half, count - half
            else:
                count = half
        entry = self.cell(first)
        if count != 1 or entry > wanted:
            raise CorruptImageError("read image: a list is empty, too long, or begins too late")
        return entry

    def rule(self, rule_id: int) -> int:
        """The cell of a rule."""
        if rule_id >= self.rule_count:
            raise CorruptImageError(f"read image: there is no rule {rule_id}")
        rule = self.cell(abi.lo(self.cell(abi.IMAGE_RULES)) + rule_id)
        if abi.hi(rule) != rule_id or not abi.ACTION_ALLOW <= rule & 0xFF <= abi.ACTION_REWRITE:
            raise CorruptImageError(f"read image: the cell of rule {rule_id} is not a rule")
        return rule

    def next_state(self, state: int, data: bytes) -> int:
        """The automaton's state after more bytes of a path."""
        for byte in data:
            step = (state, byte)
            following = self._known_steps.get(step)
            if following is None:
                following = self._known_steps[step] = self._step(0, self._state(state), byte)
            state = following
        return state

    def name_state(self, blob: int, states: int, name: bytes) -> int:
        """The state that a name of a UNIX socket leads to, in the automaton that the header cell `states` names."""
        state = 0
        for byte in name:
            state = self._step(blob, blob + abi.hi(states) + state * abi.NAME_STATE_CELLS, byte)
            if state >= abi.lo(states):
                break
        if state >= abi.lo(states):
            raise CorruptImageError(f"read image: there is no name state {state}")
        return state

    def accept(self, state: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the policies whose subject matches in a state, and of those whose `not:` does; both ascending."""
        offset = abi.lo(self.cell(self._state(state)))
        if not offset:
            return (), ()
        counts = self.cell(offset)
        matching, excluding = abi.hi(counts), abi.lo(counts)
        if matching + excluding > 2 * self.policy_count:
            raise CorruptImageError(f"read image: the accept list of state {state} is too long")
        ids = [self.cell(offset + 1 + i) for i in range(matching + excluding)]
        return tuple(ids[:matching]), tuple(ids[matching:])

    def _state(self, state: int) -> int:
        states = self.cell(abi.IMAGE_STATES)
        if state >= abi.lo(states):
            raise CorruptImageError(f"read image: there is no state {state}")
        return abi.hi(states) + state * abi.STATE_CELLS

    def _step(self, blob: int, at: int, byte: int) -> int:
        """The next state by one byte, of the one whose cells are at `at`: by an edge, found by bisection, or by
        default. Offsets count from `blob`."""
        edges = self.cell(at + 1)
        first = blob + abi.hi(edges)
        last = first + abi.lo(edges) - 1
        while first <= last:
            middle = (first + last) >> 1
            edge = self.cell(middle)
            if abi.hi(edge) == byte:
                return abi.lo(edge)
            first, last = (middle + 1, last) if abi.hi(edge) < byte else (first, middle - 1)
        return abi.hi(self.cell(at))


def _covered(span: int, wanted: int, step: int) -> int:
    """The answer of a span if it covers what is looked for, else row 0. `step`: what its key counts in."""
    answer = span & step - 1
    begin = (span & span - step) - answer
    return answer if 0 <= wanted - begin >> 1 < span - answer - begin else 0
