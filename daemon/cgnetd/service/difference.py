# SPDX-License-Identifier: Apache-2.0
"""What a reload would change: the set in force against the one that the files ask for, as rules and as verdicts.

Must not know how files are read, nor who asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cgnetd.datapath import abi
from cgnetd.datapath.compile import Image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label
from cgnetd.datapath.refs import RuleRef, RuleRefs
from cgnetd.datapath.rules import RuleIndex
from cgnetd.service.changes import Side, policy_changes, rule_changes, service_changes
from cgnetd.service.control import problem_data
from cgnetd.service.events import FlowEvent
from cgnetd.service.labelling import label_at
from cgnetd.service.policy_source import Asked
from cgnetd.service.reconcile import Reconciler
from cgnetd.service.replay import Judge, compare

_NOTHING = RuleIndex(0, "", RuleRefs(()), ())


def difference(reconciler: Reconciler, asked: Asked, events: Iterable[FlowEvent]) -> dict[str, Any]:
    """`problems`: why the files make no set; then nothing else is told, for a reload would change nothing. `rules`,
    `policies`, `services`: what would be added, removed, changed. `verdicts`: calls seen that would get another one.
    KernelError."""
    running = reconciler.running
    found: dict[str, Any] = {
        "generation": running.number if running is not None else 0,
        "problems": [problem_data(problem) for problem in asked.problems],
        "warnings": [problem_data(warning) for warning in (*asked.weaknesses, *asked.warnings)],
    }
    if asked.problems or asked.image is None:
        return found
    old, new = _in_force(reconciler), Side(asked.image.index, asked.fingerprints)
    totals = reconciler.totals()

    def calls(ref: RuleRef) -> int:
        at = ref.rule_id * abi.COUNT_KINDS + abi.COUNT_ENFORCED
        return totals[at] if at < len(totals) else 0

    return {
        **found,
        "rules": rule_changes(old, new, calls),
        "policies": policy_changes(old, new),
        "services": service_changes(old, new),
        "verdicts": _verdicts(reconciler, asked.image, events),
    }


def _in_force(reconciler: Reconciler) -> Side:
    """What its rules match is known only if the daemon has read the files that it was made of."""
    running, asked = reconciler.running, reconciler.asked
    if running is None:
        return Side(_NOTHING)
    same = asked.image is not None and asked.image.digest == running.digest
    return Side(running.index, asked.fingerprints if same else None)


def _verdicts(reconciler: Reconciler, image: Image, events: Iterable[FlowEvent]) -> dict[str, Any]:
    running = reconciler.running
    if running is None:
        return {"checked": 0, "unjudged": 0, "changed": []}
    fresh = ImageReader(image.cells)

    def fresh_label(path: str) -> Label:
        return label_at(fresh, path)

    before = Judge(running.reader, running.index, reconciler.label_of_path)
    return compare(events, before, Judge(fresh, image.index, fresh_label))
