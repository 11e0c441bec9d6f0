# SPDX-License-Identifier: Apache-2.0
"""What `cgnetctl status` shows, gathered from the kernel when it is asked for. Must not change anything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from cgnetd import __version__
from cgnetd.datapath import abi
from cgnetd.datapath.rules import RuleIndex
from cgnetd.kernel.features import COSTS
from cgnetd.kernel.slots import counter_cells
from cgnetd.service.clock import rfc3339
from cgnetd.service.control import problem_data
from cgnetd.service.neighbours import neighbour_status
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.status_live import live_status

_EXAMPLES = 5
STATS = ("ring_full", "lost", "unlabelled", "label_failed", "overflow", "corrupt")  # enum cgn_stat, in its order


def status(reconciler: Reconciler, service: Mapping[str, int]) -> dict[str, Any]:
    """The whole answer. `service`: counts of the daemon itself, shown among the kernel's statistics."""
    running = reconciler.running
    reasons = reconciler.not_enforcing()
    governed, by_policy = _governed(reconciler)
    totals = reconciler.totals()
    index = running.index if running else None
    last = reconciler.last
    return {
        "version": __version__,
        "pid": os.getpid(),
        "enforcing": not reasons,
        "reasons": list(reasons),
        "generation": running.number if running else 0,
        "loaded_at": rfc3339(reconciler.loaded_ns) if running and reconciler.loaded_ns else "",
        "policies": _policies(index, totals, by_policy),
        "governed_cgroups": governed,
        "overflow": _overflow(reconciler),
        "cgroups": reconciler.tree_size(),
        "cgroup_root": str(reconciler.root.path),
        "pin_dir": str(reconciler.settings.pin_dir),
        "policy_dirs": list(reconciler.settings.policy_dirs),
        "default_action": reconciler.settings.default_action,
        "hooks": dict(reconciler.hooks),
        **neighbour_status(reconciler),
        **live_status(reconciler),
        "counters": _counters(index, totals),
        "stats": {**dict(zip(STATS, reconciler.stats(), strict=True)), **service},
        "last_reconcile": last.to_json(),
        "last_load": reconciler.last_load.to_json() if reconciler.last_load else {},
        "problems": [problem_data(problem) for problem in last.problems],
        "warnings": [problem_data(warning) for warning in (*last.degraded, *last.warnings)],
        "missing_features": [f"{name}: {COSTS[name]}" for name in reconciler.features.missing()],
        "sizes": _sizes(reconciler),
    }


def _governed(reconciler: Reconciler) -> tuple[int, Counter[int]]:
    """How many cgroups are governed at all, and by each policy id."""
    governed = 0
    by_policy: Counter[int] = Counter()
    for label in reconciler.labels_in_force():
        governed += bool(label.policies) or label.overflow
        by_policy.update(label.policies)
    return governed, by_policy


def _overflow(reconciler: Reconciler) -> dict[str, Any]:
    """The cgroups where every call is denied, for more policies govern them than a label holds: how many, and a few."""
    count = sum(label.overflow for label in reconciler.labels_in_force())
    paths = (path for path in reconciler.paths() if reconciler.label_of_path(path).overflow) if count else ()
    return {"cgroups": count, "examples": list(islice(paths, _EXAMPLES))}


def _policies(index: RuleIndex | None, totals: Sequence[int], governed: Mapping[int, int]) -> list[dict[str, Any]]:
    if index is None:
        return []
    rules: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    for ref in index.refs:
        rules[ref.policy] += 1
        decided[ref.policy] += sum(_counts(totals, ref.rule_id))
    return [
        {
            "name": ref.name,
            "tier": ref.tier,
            "priority": ref.priority,
            "mode": "audit" if ref.audit else "enforce",
            "file": ref.file,
            "line": ref.line,
            "rules": rules[ref.name],
            "governed": governed.get(ref.policy_id, 0),
            "decided": decided[ref.name],
        }
        for ref in index.policies
    ]


def _counters(index: RuleIndex | None, totals: Sequence[int]) -> list[dict[str, Any]]:
    if index is None:
        return []
    return [
        {
            "policy": ref.policy,
            "rule": ref.rule,
            "file": ref.file,
            "line": ref.line,
            "action": ref.action,
            "enforced": counts[abi.COUNT_ENFORCED],
            "shadow": counts[abi.COUNT_SHADOW],
        }
        for ref in index.refs
        for counts in [_counts(totals, ref.rule_id)]
    ]


def _counts(totals: Sequence[int], rule_id: int) -> tuple[int, int]:
    at = rule_id * abi.COUNT_KINDS
    return (totals[at], totals[at + 1]) if at + 1 < len(totals) else (0, 0)


def _sizes(reconciler: Reconciler) -> dict[str, int]:
    running, image = reconciler.running, reconciler.asked.image
    if running is None:
        return {}
    rules, cell_bytes = len(running.index.refs), running.cells.itemsize
    found = {
        "image_bytes": len(running.cells) * cell_bytes,
        "limit_bytes": reconciler.settings.limits.image_bytes,
        "live_bytes": running.index.live.size * cell_bytes,
        "counters_bytes": counter_cells(rules) * cell_bytes,
        "rules": rules,
    }
    if image is not None and image.digest == running.digest:
        sizes = image.sizes
        found |= {"rows": sizes.rows, "port_lists": sizes.port_lists, "entries": sizes.entries, "states": sizes.states}
    return found
