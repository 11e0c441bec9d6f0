# SPDX-License-Identifier: Apache-2.0
"""Programs of others, as `cgnetctl status` prints them."""

from __future__ import annotations

import re
from typing import Any

from cgnetd.cli.neighbours import conflict_texts, neighbour_lines


def program(**changes: Any) -> dict[str, Any]:
    return {
        "hook": "connect4",
        "order": "before",
        "place": "below",
        "cgroup": "/a",
        "flags": "multi",
        "prog_id": 7,
        "name": "theirs",
        "owner": "",
        "uid": 0,
        "pinned": "",
    } | changes


def status(*programs: dict[str, Any], complete: bool = True, error: str = "") -> dict[str, Any]:
    return {"neighbours": {"programs": list(programs), "complete": complete, "error": error}}


def row(*programs: dict[str, Any]) -> str:
    """The only row below the head, with columns told apart by one bar."""
    (_, line) = neighbour_lines(status(*programs))
    return re.sub(r" {2,}", "|", line)


def test_nobody_needs_no_lines() -> None:
    assert neighbour_lines(status()) == ()
    assert neighbour_lines({}) == ()
    assert conflict_texts({}) == ()


def test_program_is_shown_with_its_order_and_whose_it_is() -> None:
    assert row(program(owner="systemd", pinned="/p")) == "connect4|before ours|7 theirs|systemd|multi|/a"
    assert row(program(order="after", pinned="/p")) == "connect4|after ours|7 theirs|/p|multi|/a"
    assert row(program(hook="egress", order="apart", uid=12)) == "egress|no hook of ours|7 theirs|uid 12|multi|/a"


def test_program_out_of_sight_is_shown_as_such() -> None:
    hidden = program(order="displaced", place="above", cgroup="", flags="?", name="")
    assert row(hidden) == "connect4|does not run|7|uid 0|?|above, out of sight"


def test_same_program_in_many_cgroups_is_one_row() -> None:
    many = [program(prog_id=7 + number, cgroup=f"/{number}") for number in range(3)]
    assert row(*many) == "connect4|before ours|3 x theirs|uid 0|multi|/0 and 2 more"


def test_different_orders_are_different_rows() -> None:
    assert len(neighbour_lines(status(program(), program(order="after")))) == 3


def test_what_is_not_known_is_said() -> None:
    assert neighbour_lines(status(complete=False)) == ("there may be more: the tree is too large to be looked through",)
    assert neighbour_lines(status(complete=False, error="no")) == ("not known: no",)


def test_conflicts_are_sentences() -> None:
    assert conflict_texts({"conflicts": [{"kind": "held", "text": "hook connect4 cannot"}]}) == (
        "hook connect4 cannot",
    )
