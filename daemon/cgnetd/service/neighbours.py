# SPDX-License-Identifier: Apache-2.0
"""What `cgnetctl status` shows of programs of others on the same cgroups. Must not change anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cgnetd.errors import CgnetdError
from cgnetd.kernel.conflicts import Conflict
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.neighbours import Sighting, Survey, survey
from cgnetd.kernel.others import Other, cgroup_links, describe, pins
from cgnetd.service.clock import rfc3339
from cgnetd.service.reconcile import Reconciler

_BUDGET_S = 0.2  # for the tree: the daemon does nothing else meanwhile


def neighbour_status(reconciler: Reconciler) -> dict[str, Any]:
    """`neighbours` and `conflicts`. What cannot be found out is told in `error`: the rest of a status counts more."""
    session = reconciler.session
    try:
        ours = session.links.attached() if session is not None else {}
        found = survey(reconciler.root, ours, budget_s=_BUDGET_S)
        return {
            "neighbours": {"programs": _programs(found), "complete": found.complete, "error": ""},
            "conflicts": [_conflict(conflict) for conflict in reconciler.conflicts()],
        }
    except CgnetdError as error:
        return {"neighbours": {"programs": [], "complete": False, "error": str(error)}, "conflicts": []}


def _programs(found: Survey) -> list[dict[str, Any]]:
    ids = frozenset(sighting.prog_id for sighting in found.sightings)
    if not ids:
        return []
    try:
        others = {prog_id: describe(prog_id) for prog_id in sorted(ids)}
        places = pins(ids)
        links = cgroup_links()
    except OSError as error:
        raise kernel_error("look at programs of others", error) from error
    booted_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return [
        _program(sighting, others[sighting.prog_id], booted_ns)
        | {
            "link_id": links.get((sighting.cgroup_id, sighting.seat.attach_type, sighting.prog_id), 0),
            "pinned": places.get(sighting.prog_id, ""),
        }
        for sighting in found.sightings
    ]


def _program(sighting: Sighting, other: Other, booted_ns: int) -> dict[str, Any]:
    return {
        "hook": sighting.seat.name,
        "order": sighting.order.value,
        "place": sighting.place.value,
        "cgroup": sighting.cgroup,
        "flags": sighting.flags_text,
        "prog_id": other.prog_id,
        "name": other.name,
        "type": other.type,
        "tag": other.tag,
        "uid": other.uid,
        "loaded_at": rfc3339(booted_ns + other.loaded_ns) if other.loaded_ns else "",
        "owner": other.owner,
    }


def _conflict(conflict: Conflict) -> Mapping[str, Any]:
    return {
        "kind": conflict.clash.value,
        "hook": conflict.hook,
        "prog_id": conflict.other.prog_id,
        "name": conflict.other.name,
        "cgroup": conflict.cgroup,
        "text": conflict.text,
    }
