# SPDX-License-Identifier: Apache-2.0
"""In which forms the lists of an address table are (cgnetd/tables.h). Must not know what is in them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from cgnetd.datapath import abi


def list_kinds(cells: array[int], blob: int, node: int) -> Iterator[str]:
    """A word for each list that a node of the blob at `blob` leads to: starts, spans, dense, or inline for one span."""
    size, at = abi.lo(node), blob + abi.hi(node)
    if size & abi.NODE_INDEX:
        for following in cells[at : at + (1 << (size & 31))]:
            yield from list_kinds(cells, blob, following)
    elif size & abi.NODE_DENSE:
        yield "dense" if size & (1 << abi.DENSE_SHIFT) - 1 else "inline"
    elif size:
        yield "spans" if size & abi.NODE_SPANS else "starts"
        for entry in cells[at : at + (size & (1 << abi.NODE_SHIFT) - 1)]:
            if entry & abi.TABLE_MORE:
                yield from list_kinds(cells, blob, cells[blob + (entry & abi.TABLE_MORE - 1)])
