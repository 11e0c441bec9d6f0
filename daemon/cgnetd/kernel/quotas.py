# SPDX-License-Identifier: Apache-2.0
"""How many flows each cgroup and what is below it have, counted anew from the flows that are left.

Pure: values of bpf/quota.bpf.h in and out. Must not know maps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cgnetd.kernel import layout


class Quota(NamedTuple):
    """struct cgn_quota. `parent_id`: the cgroup whose count includes this one; QUOTA_EVERYBODY: no other has it."""

    flows: int
    parent_id: int


def recount(left: Mapping[int, int], told: Mapping[int, Quota]) -> dict[int, Quota]:
    """Every count that is not zero, by cgroup id.

    `left`: how many flows of its own each cgroup has; `told`: what the programs said, which is where the parents are
    from. A cgroup of which they said nothing counts for itself and for everybody.
    """
    flows = Counter[int]()
    for cgroup_id, count in left.items():
        for one in _counted_for(cgroup_id, told):
            flows[one] += count
    return {one: Quota(count, _parent(one, told)) for one, count in flows.items()}


def _counted_for(cgroup_id: int, told: Mapping[int, Quota]) -> Iterator[int]:
    """Each once: parents are data of many writers, and could lead in a circle."""
    seen = {layout.QUOTA_EVERYBODY}
    yield layout.QUOTA_EVERYBODY
    while cgroup_id not in seen and len(seen) <= layout.QUOTA_LEVELS + 1:
        seen.add(cgroup_id)
        yield cgroup_id
        cgroup_id = _parent(cgroup_id, told)


def _parent(cgroup_id: int, told: Mapping[int, Quota]) -> int:
    return told[cgroup_id].parent_id if cgroup_id in told else layout.QUOTA_EVERYBODY
