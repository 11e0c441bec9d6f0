# SPDX-License-Identifier: Apache-2.0
"""Looks for want of trust come at once, but not again and again for nothing."""

from __future__ import annotations

from cgnetd.service.recheck import LONGEST_S, Recheck


def test_first_look_is_made_at_once_and_the_next_a_second_later() -> None:
    recheck = Recheck()
    assert recheck.delay_s(100.0) == 0.0
    recheck.looked(100.0, repaired=True)
    assert recheck.delay_s(100.25) == 0.75
    assert recheck.delay_s(102.0) == 0.0


def test_looks_that_repair_nothing_come_less_and_less_often() -> None:
    recheck = Recheck()
    gaps = []
    for _ in range(9):
        recheck.looked(50.0, repaired=False)
        gaps.append(recheck.delay_s(50.0))
    assert gaps[:4] == [1.0, 2.0, 4.0, 8.0]
    assert gaps[-1] == LONGEST_S
    recheck.looked(50.0, repaired=True)
    assert recheck.delay_s(50.0) == 1.0
