# SPDX-License-Identifier: Apache-2.0
"""One section of one policy: which rules meet at a set of addresses, and the row of port lists that makes of it.

Rules that hold the same addresses object form a group; the sweep over addresses sees groups only. Rules on any address
meet all others and would be in every list: they and the default have a row of their own. A row has a cell a column;
contexts (egress: hook and protocol, bind: protocol) to which the same rules apply have one column. Must not know of
address tables or offsets outside the blob.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain

from cgnetd.datapath import abi
from cgnetd.datapath.budget import Budget
from cgnetd.datapath.ports import PortLists, port_ranges
from cgnetd.policy.types import AddressRanges, Hook, Protocol, Range, Rule

PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.UDPLITE, Protocol.SCTP, Protocol.ICMP, Protocol.OTHER)
EGRESS_HOOKS = (Hook.CONNECT, Hook.SENDMSG)
EGRESS_CONTEXTS = tuple((hook, protocol) for hook in EGRESS_HOOKS for protocol in PROTOCOLS)
BIND_CONTEXTS = tuple((None, protocol) for protocol in PROTOCOLS)

Context = tuple[Hook | None, Protocol]


FORESEEN_FROM = 64  # groups; fewer cannot multiply much


def meetings(groups: Sequence[Sequence[Range]]) -> int:
    """How many groups there are in all pieces of the line together: the steps that a sweep of them takes at least.

    `groups`: sorted disjoint ranges of each.
    """
    cuts = {first for ranges in groups for first, _ in ranges} | {last + 1 for ranges in groups for _, last in ranges}
    piece = {cut: number for number, cut in enumerate(sorted(cuts))}
    return sum(piece[last + 1] - piece[first] for ranges in groups for first, last in ranges)


class Rows:
    """Groups and rows of one section. `references` are those of the rules, ascending, `fallback` is for none."""

    def __init__(
        self,
        rules: Sequence[Rule],
        contexts: Sequence[Context],
        lists: PortLists,
        budget: Budget,
        *,
        references: Sequence[int],
        fallback: int,
    ) -> None:
        self.addresses: list[AddressRanges | None] = []  # of each group; None is everywhere
        self._rules = rules
        self._lists = lists
        self._budget = budget
        self._ranges = _reference_ranges(rules, references)
        self._members, self._columns = self._classify(rules, contexts)
        self._lists_by_rules: dict[tuple[int, ...], int] = {}
        self._rows_by_content: dict[tuple[int, ...], int] = {}
        always = [group for group, addresses in enumerate(self.addresses) if addresses is None]
        common = [_merge([members[group] for group in always]) for members in self._members]
        self._ends = [self._end(numbers) for numbers in common]
        self.cells = array("Q", [lists.indexed(self._port_list(numbers, fallback)) for numbers in common])

    @property
    def columns(self) -> int:
        """The cell that tells the column of each context, and how many there are."""
        return len(self._members) << 60 | sum(column << 4 * context for context, column in enumerate(self._columns))

    @property
    def count(self) -> int:
        """Distinct rows so far, without that for any address, which `cells` begin with."""
        return len(self._rows_by_content)

    def add(self, groups: tuple[int, ...]) -> int:
        """The number of the row where exactly these groups (ascending) meet."""
        content = tuple(
            [self._own_list(members, groups, end) for members, end in zip(self._members, self._ends, strict=True)]
        )
        row = self._rows_by_content.get(content)
        if row is None:
            self._budget.spend_cells(len(content))
            row = self._rows_by_content[content] = len(self._rows_by_content)
            self.cells.extend(content)
        return row

    def exchange(self, one: int, other: int) -> None:
        """Give each of two rows the number of the other."""
        width = len(self._members)
        places = [slice((row + 1) * width, (row + 2) * width) for row in (one, other)]
        contents = [self.cells[place] for place in places]
        for row, place, content in zip((one, other), places, reversed(contents), strict=True):
            self.cells[place] = content
            self._rows_by_content[tuple(content)] = row

    def _own_list(self, members: Sequence[Sequence[int]], groups: tuple[int, ...], end: int) -> int:
        """Of the rules of these groups, as far as they come before `end`."""
        rules = _merge([members[group] for group in groups])
        if rules and rules[-1] >= end:
            rules = tuple([rule for rule in rules if rule < end])
        known = self._lists_by_rules.get(rules)
        if known is None:
            known = self._lists_by_rules[rules] = self._port_list(rules, abi.REF_NONE)
        return known

    def _port_list(self, rules: Sequence[int], fallback: int) -> int:
        ranges: list[tuple[int, int, int]] = []
        for rule in rules:
            ranges += self._ranges[rule]
            if self._rules[rule].ports is None:
                break  # it leaves nothing to the rules behind it
        self._budget.spend_steps(len(rules))
        return self._lists.add(ranges, fallback)

    def _end(self, common: Sequence[int]) -> int:
        """The first rule that takes every port at any address: it leaves nothing to the rules behind it."""
        return next((rule for rule in common if self._rules[rule].ports is None), len(self._rules))

    def _classify(
        self, rules: Sequence[Rule], contexts: Sequence[Context]
    ) -> tuple[list[list[list[int]]], tuple[int, ...]]:
        """Rule indices by class of contexts and group, and the class of each context."""
        masks = _context_masks(rules, contexts)
        distinct = sorted(set(masks))
        signatures = [tuple(mask >> i & 1 for mask in distinct) for i in range(len(contexts))]
        classes = {signature: i for i, signature in enumerate(dict.fromkeys(signatures))}
        taken_by = {mask: [k for s, k in classes.items() if s[i]] for i, mask in enumerate(distinct)}
        members: list[list[list[int]]] = [[] for _ in classes]
        groups: dict[int, int] = {}
        for index, rule in enumerate(rules):
            group = groups.setdefault(id(rule.addresses), len(self.addresses))
            if group == len(self.addresses):
                self.addresses.append(rule.addresses)
                for of_class in members:
                    of_class.append([])
            for k in taken_by[masks[index]]:
                members[k][group].append(index)
        return members, tuple(classes[signature] for signature in signatures)


def _context_masks(rules: Sequence[Rule], contexts: Sequence[Context]) -> list[int]:
    """For each rule a bit a context that it applies to."""
    known: dict[tuple[frozenset[Protocol] | None, frozenset[Hook]], int] = {}
    masks = []
    for rule in rules:
        key = (rule.protocols, rule.hooks)
        mask = known.get(key)
        if mask is None:
            mask = known[key] = sum(1 << i for i, context in enumerate(contexts) if _applies(rule, *context))
        masks.append(mask)
    return masks


def _applies(rule: Rule, hook: Hook | None, protocol: Protocol) -> bool:
    return (hook is None or hook in rule.hooks) and (rule.protocols is None or protocol in rule.protocols)


def _reference_ranges(rules: Sequence[Rule], references: Sequence[int]) -> list[list[tuple[int, int, int]]]:
    """`(first, last, reference)` of each rule's ports."""
    return [
        [(first, last, reference) for first, last in port_ranges(rule)]
        for reference, rule in zip(references, rules, strict=True)
    ]


def _merge(lists: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """One ascending tuple of ascending lists."""
    if len(lists) == 1:
        return tuple(lists[0])
    return tuple(sorted(chain.from_iterable(lists)))
