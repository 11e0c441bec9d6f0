# SPDX-License-Identifier: Apache-2.0
"""Counters across generations: what a rule had counted under its old id goes to its new one.

Pure. Must not know where counters are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from cgnetd.datapath import abi
from cgnetd.datapath.refs import RuleRef
from cgnetd.datapath.rules import RuleIndex


def carried(old: RuleIndex, totals: Sequence[int], new: RuleIndex) -> list[int]:
    """The totals of `old` in the order of `new`, [rule id * 2 + kind]: 0 for rules that `old` did not have.

    A rule is the same if policy, section and name are; counts of rules that are gone are dropped.
    """
    before = {_key(ref): ref.rule_id for ref in old.refs}
    found: list[int] = []
    for ref in new.refs:
        at = before.get(_key(ref), len(old.refs)) * abi.COUNT_KINDS
        counts = list(totals[at : at + abi.COUNT_KINDS])
        found += counts + [0] * (abi.COUNT_KINDS - len(counts))
    return found


def _key(ref: RuleRef) -> tuple[str, str, str]:
    return (ref.policy, ref.section, ref.rule)
