# SPDX-License-Identifier: Apache-2.0
"""Rows of rules that meet: what rules on any address cost beside others, and what comes of rules behind such."""

from __future__ import annotations

from cgnetd.datapath.blob import BlobSizes, compile_policy
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import Label
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action, Flow, Hook, PolicySet, Protocol
from support.classbench import head

HOSTS = "".join(f"    - {{action: deny, to: [10.0.{n >> 7}.{n << 1 & 254}], ports: [80]}}\n" for n in range(1000))
ANYWHERE = "".join(f"    - {{action: allow, to: [any], ports: [{port}]}}\n" for port in range(1000, 2000, 10))


def policies_of(rules: str) -> PolicySet:
    text = f"{head('p', '/p')}  egress:\n{rules}"
    result = parse([Source("p.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return result.policy_set


def sizes_of(rules: str) -> BlobSizes:
    return compile_policy(policies_of(rules).policies[0]).sizes


def test_rules_on_any_address_do_not_multiply_with_the_others() -> None:
    alone, both = sizes_of(HOSTS), sizes_of(ANYWHERE + HOSTS)
    entries, nodes_an_entry = 2 * 100 + 1, 8
    assert both.cells - alone.cells <= entries * (1 + nodes_an_entry)
    assert (both.rows, both.port_lists) == (alone.rows, 1)


def test_rules_behind_one_that_takes_everything_are_left_out() -> None:
    assert sizes_of("    - {action: allow}\n" + HOSTS).entries == 2  # one a family


def test_the_row_that_is_met_most_answers_where_no_prefix_is() -> None:
    hosts = ", ".join(f"10.0.{3 * n >> 8}.{3 * n & 255}" for n in range(1000))
    alone = f"    - {{action: deny, to: [{hosts}]}}\n"
    within = f"{alone}    - {{action: allow, to: [8.0.0.0/5, 1::/16]}}\n    - {{action: deny}}\n"
    reader = ImageReader(compile_image(policies_of(within), default_action=Action.ALLOW, generation=1).cells)

    def is_denied(family: int, address: int) -> bool:
        return reader.judge(Label(0, (0,)), None, Flow(Hook.CONNECT, Protocol.TCP, family, address, 80)).denied

    assert [is_denied(4, (10 << 24) + n) for n in range(5)] == [True, False, False, True, False]
    assert [is_denied(4, n << 24) for n in (7, 8, 15, 16)] == [True, False, False, True]
    assert [is_denied(6, n << 112) for n in (0, 1, 2)] == [True, False, True]
    assert sizes_of(within).cells < sizes_of(alone).cells + 1000
