# SPDX-License-Identifier: Apache-2.0
"""Labels: order of the chain, what `not:` takes away, too many policies, and the bytes the kernel reads."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.interpret import ImageReader
from cgnetd.datapath.label import (
    Label,
    child_label,
    label_basis,
    pack_entry,
    pack_label,
    relabelled,
    root_label,
    unpack_entry,
    unpack_label,
)
from cgnetd.policy.types import Action, Pattern, PatternKind, Policy, PolicySet, Subject, Tier, Where


def policy(name: str, *globs: str, exclude: tuple[str, ...] = (), tier: Tier = Tier.NORMAL) -> Policy:
    patterns = [tuple(Pattern(PatternKind.PATH, glob) for glob in listed) for listed in (globs, exclude)]
    return Policy(name, Subject(*patterns), Where("p.yaml", 1), tier=tier)


class Tree:
    """Labels by path, and policies by name."""

    def __init__(self, *policies: Policy) -> None:
        self.policies = sorted(policies, key=lambda p: p.order)
        image = compile_image(PolicySet(tuple(self.policies)), default_action=Action.ALLOW, generation=1)
        self.cells = image.cells
        self.reader = ImageReader(self.cells)

    def label(self, path: str) -> Label:
        label = root_label(self.reader)
        for name in path.split("/")[1:] if path != "/" else []:
            label = child_label(self.reader, label, os.fsencode(name))
        return label

    def chain(self, path: str) -> str:
        return " ".join(self.policies[i].name for i in self.label(path).policies)

    def excluded(self, path: str) -> str:
        return " ".join(self.policies[i].name for i in self.label(path).excluded)


def test_labels_with_one_basis_are_the_same_whatever_the_rules_say() -> None:
    trees = [
        Tree(replace(policy("x", "/a/*", exclude=("/a/b",)), default_egress=action), policy("y", "/a", tier=tier))
        for action, tier in ((Action.PASS, Tier.ADMIN), (Action.DENY, Tier.ADMIN), (Action.DENY, Tier.BASELINE))
    ]
    bases = [label_basis(tree.cells) for tree in trees]
    assert (bases[0] == bases[1], bases[1] == bases[2]) == (True, False)
    paths = ("/", "/a", "/a/b", "/a/b/c", "/a/c", "/b")
    assert [trees[0].label(path) for path in paths] == [trees[1].label(path) for path in paths]
    assert len({trees[0].label(path).policies for path in paths}) > 2


def test_a_label_under_another_number_differs_in_that_alone() -> None:
    label = Label(7, (1, 2), (3,))
    assert relabelled(pack_label(label, 4), 2**32 - 1) == pack_label(label, 2**32 - 1)


def test_admin_policies_come_nearest_the_root_first() -> None:
    tree = Tree(policy("deep", "/a/b", tier=Tier.ADMIN), policy("high", "/a", tier=Tier.ADMIN))
    assert tree.chain("/a/b") == "high deep"


def test_an_admin_policy_that_matches_again_stays_where_it_is() -> None:
    tree = Tree(policy("x", "/a", "/a/b", tier=Tier.ADMIN), policy("y", "/a/b", "/a", tier=Tier.ADMIN))
    assert tree.chain("/a/b") == "x y"
    tree = Tree(policy("x", "/a/b", tier=Tier.ADMIN), policy("y", "/a", "/a/b", tier=Tier.ADMIN))
    assert tree.chain("/a/b") == "y x"


@pytest.mark.parametrize("tier", [Tier.NORMAL, Tier.BASELINE])
def test_other_policies_come_nearest_the_cgroup_first(tier: Tier) -> None:
    tree = Tree(policy("deep", "/a/b", tier=tier), policy("high", "/a", tier=tier))
    assert tree.chain("/a/b") == "deep high"


@pytest.mark.parametrize("tier", [Tier.NORMAL, Tier.BASELINE])
def test_one_that_matches_again_moves_to_the_front(tier: Tier) -> None:
    tree = Tree(policy("x", "/a", "/a/b/c", tier=tier), policy("y", "/a/b", tier=tier))
    assert [tree.chain(path) for path in ("/a", "/a/b", "/a/b/c")] == ["x", "y x", "x y"]


def test_tiers_come_in_their_order_whatever_the_depth() -> None:
    tree = Tree(
        policy("base", "/a/b", tier=Tier.BASELINE), policy("mid", "/a"), policy("guard", "/a/b", tier=Tier.ADMIN)
    )
    assert tree.chain("/a/b") == "guard mid base"


def test_children_inherit_whatever_they_are_called() -> None:
    tree = Tree(policy("root", "/"), policy("a", "/a"))
    assert tree.chain("/") == "root"
    assert tree.chain("/a/x/y/z") == "a root"
    assert tree.chain("/b/a") == "root"


def test_what_is_excluded_is_gone_for_good() -> None:
    tree = Tree(policy("p", "/**", exclude=("/a/b",)), policy("q", "/a"))
    assert (tree.chain("/a"), tree.excluded("/a")) == ("p q", "")
    assert (tree.chain("/a/b"), tree.excluded("/a/b")) == ("q", "p")
    assert (tree.chain("/a/b/c"), tree.excluded("/a/b/c")) == ("q", "p")
    assert tree.chain("/a/c") == "p q"


def test_exclusion_wins_where_both_match() -> None:
    tree = Tree(policy("p", "/a", exclude=("/a",)))
    assert (tree.chain("/a"), tree.excluded("/a")) == ("", "p")


def test_one_excluded_before_it_matched_never_governs() -> None:
    tree = Tree(policy("p", "/a/b", exclude=("/a",)))
    assert (tree.chain("/a/b"), tree.excluded("/a/b")) == ("", "p")


def crowd(count: int, tier: Tier = Tier.NORMAL) -> list[Policy]:
    return [policy(f"p{i:02}", f"/{'/'.join('a' * (i % 3 + 1))}", tier=tier) for i in range(count)]


def test_as_many_policies_as_fit_govern() -> None:
    label = Tree(*crowd(abi.CHAIN_MAX)).label("/a/a/a")
    assert (len(label.policies), label.overflow) == (abi.CHAIN_MAX, False)


def test_one_more_overflows_here_and_below() -> None:
    tree = Tree(*crowd(abi.CHAIN_MAX + 1))
    assert not tree.label("/a/a").overflow
    overflowed = tree.label("/a/a/a")
    assert (overflowed.policies, overflowed.excluded, overflowed.overflow) == ((), (), True)
    assert tree.label("/a/a/a/b").overflow
    assert tree.label("/a/a/a/b").state != tree.label("/a/a/a").state


def test_excluded_policies_take_room_too() -> None:
    many = [policy(f"x{i:02}", "/b", exclude=("/a",)) for i in range(20)]
    assert not Tree(*many, *(policy(f"p{i}", "/a") for i in range(6))).label("/a").overflow
    assert Tree(*many, *(policy(f"p{i}", "/a") for i in range(7))).label("/a").overflow


def test_more_matches_than_a_label_holds_overflow_even_if_some_are_excluded() -> None:
    tree = Tree(*(policy(f"p{i:02}", "/a", exclude=("/a",) if i < 2 else ()) for i in range(abi.CHAIN_MAX + 1)))
    assert tree.label("/a").overflow


@pytest.mark.parametrize(
    "label",
    [Label(0), Label(7, (3, 1, 2), (9, 4)), Label(5, tuple(range(20)), tuple(range(20, 26))), Label(3, overflow=True)],
)
def test_a_label_survives_its_bytes(label: Label) -> None:
    packed = pack_label(label, 77)
    assert len(packed) == abi.LABEL.size
    assert unpack_label(packed) == (77, label)


def test_a_label_is_packed_as_the_kernel_writes_it() -> None:
    fields = abi.LABEL.unpack(pack_label(Label(5, (8, 9), (3,)), 2))
    assert fields[:5] == (2, 5, 2, 1, 0)
    assert fields[5:] == (8, 9, 3, *(0,) * (abi.CHAIN_MAX - 3))


def test_bytes_that_are_no_label_are_told() -> None:
    raw = bytearray(pack_label(Label(1, (1,)), 1))
    raw[8], raw[9] = abi.CHAIN_MAX, 1
    assert unpack_label(bytes(raw)) is None


def test_an_entry_holds_a_label_a_slot() -> None:
    first, second = pack_label(Label(1), 1), pack_label(Label(2, (4,)), 2)
    assert unpack_entry(pack_entry([first, second])) == (first, second)
    assert unpack_entry(pack_entry([None, second])) == (bytes(abi.LABEL.size), second)
    assert len(pack_entry([None, None])) == abi.ENTRY.size
