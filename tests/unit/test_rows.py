# SPDX-License-Identifier: Apache-2.0
"""Rows of rules that meet: what rules on any address cost beside others, and what comes of rules behind such."""

from __future__ import annotations

from cgnetd.datapath.blob import BlobSizes, compile_policy
from cgnetd.policy.load import Source, parse
from support.classbench import head

HOSTS = "".join(f"    - {{action: deny, to: [10.0.{n >> 7}.{n << 1 & 254}], ports: [80]}}\n" for n in range(1000))
ANYWHERE = "".join(f"    - {{action: allow, to: [any], ports: [{port}]}}\n" for port in range(1000, 2000, 10))


def sizes_of(rules: str) -> BlobSizes:
    text = f"{head('p', '/p')}  egress:\n{rules}"
    result = parse([Source("p.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return compile_policy(result.policy_set.policies[0]).sizes


def test_rules_on_any_address_do_not_multiply_with_the_others() -> None:
    alone, both = sizes_of(HOSTS), sizes_of(ANYWHERE + HOSTS)
    entries, nodes_an_entry = 2 * 100 + 1, 8
    assert both.cells - alone.cells <= entries * (1 + nodes_an_entry)
    assert (both.rows, both.port_lists) == (alone.rows, 1)


def test_rules_behind_one_that_takes_everything_are_left_out() -> None:
    assert sizes_of("    - {action: allow}\n" + HOSTS).entries == 2  # one a family
