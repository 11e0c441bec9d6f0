# SPDX-License-Identifier: Apache-2.0
"""Checked documents to the nouns of `types`: words to addresses, lists to sets, defaults filled in.

Must not know what can be wrong with a document: everything here was checked before.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from functools import lru_cache

from . import models
from .document import Document
from .ranges import EVERYTHING, difference, merged, size, union
from .types import Action, AddressRanges, Hook, Pattern, Policy, Protocol, Range, Rule, Section, Subject, Tier, Where

_BOTH_HOOKS = frozenset({Hook.CONNECT, Hook.SENDMSG})
_MAX_RANGES = 8 << 20  # that all rules hold together; a few hundred megabytes once compiled


class TooManyRangesError(Exception):
    """The rules' addresses together are more than is sane; the text tells the limit."""


class Addresses:
    """The addresses of lists of words. Equal lists give the same object, so that a big set is held once."""

    def __init__(self, words: Mapping[str, AddressRanges], sets: Mapping[str, AddressRanges]) -> None:
        self._words = words
        self._sets = sets
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], AddressRanges | None] = {}
        self._ranges = 0

    def of(self, to: Sequence[str], holes: Sequence[str]) -> AddressRanges | None:
        """`to` (empty: any) less `holes`; None is every address. Raises TooManyRangesError."""
        if not to and not holes:
            return None
        key = (tuple(to), tuple(holes))
        if key not in self._known:
            self._known[key] = self._computed(to, holes)
        return self._known[key]

    def _computed(self, to: Sequence[str], holes: Sequence[str]) -> AddressRanges | None:
        found = union([self._word(word) for word in to]) if to else EVERYTHING
        if holes:
            found = difference(found, union([self._word(word) for word in holes]))
        if len(to) != 1 or holes:
            self._ranges += size(found)
        if self._ranges > _MAX_RANGES:
            raise TooManyRangesError(f"the addresses of all rules make more than {_MAX_RANGES} ranges")
        return None if found == EVERYTHING else found

    def _word(self, word: str) -> AddressRanges:
        return self._sets[word.removeprefix("set:")] if word.startswith("set:") else self._words[word]


def build_policy(document: Document, read: models.PolicyDocument, addresses: Addresses) -> Policy:
    """The policy of a checked document. Raises TooManyRangesError."""
    spec = read.spec
    has_default = "default" in spec.model_fields_set
    return Policy(
        name=read.metadata.name,
        description=read.metadata.description,
        subject=Subject(_patterns(spec.subject), _patterns(spec.subject.exclude) if spec.subject.exclude else ()),
        where=Where(document.file, *document.place(())),
        tier=Tier[spec.tier.upper()],
        priority=spec.priority,
        audit=spec.mode == "audit",
        egress=_egress_rules(document, spec.egress, addresses),
        bind=_bind_rules(document, spec.bind, addresses),
        default_egress=Action(spec.default.egress),
        default_bind=Action(spec.default.bind),
        default_where=Where(document.file, *document.place(("spec", "default"), key=True)) if has_default else None,
    )


def _patterns(lists: models.SubjectLists) -> tuple[Pattern, ...]:
    return (*lists.units, *lists.user_units, *lists.slices, *lists.users, *lists.cgroups)


def _egress_rules(document: Document, rules: list[models.EgressRule], addresses: Addresses) -> tuple[Rule, ...]:
    places = document.places(("spec", "egress"))
    return tuple(
        Rule(
            name=rule.name or f"egress[{index}]",
            section=Section.EGRESS,
            action=_ACTIONS[rule.action],
            where=Where(document.file, line, column),
            addresses=addresses.of(rule.to, rule.except_),
            protocols=_protocols(tuple(rule.protocols)),
            ports=_ports(rule.ports),
            hooks=_hooks(tuple(rule.hooks)),
            errno=_ERRNOS[rule.errno],
            log=_logs(rule),
        )
        for index, (rule, (line, column)) in enumerate(zip(rules, places, strict=True))
    )


def _bind_rules(document: Document, rules: list[models.BindRule], addresses: Addresses) -> tuple[Rule, ...]:
    places = document.places(("spec", "bind"))
    return tuple(
        Rule(
            name=rule.name or f"bind[{index}]",
            section=Section.BIND,
            action=_ACTIONS[rule.action],
            where=Where(document.file, line, column),
            addresses=addresses.of(rule.addresses, ()),
            protocols=_protocols(tuple(rule.protocols)),
            ports=merged([found for found in rule.ports if found]) if rule.ports else None,
            ephemeral=None in rule.ports,
            errno=_ERRNOS[rule.errno],
            log=_logs(rule),
        )
        for index, (rule, (line, column)) in enumerate(zip(rules, places, strict=True))
    )


_ACTIONS = {action.value: action for action in Action}
_ERRNOS = {
    name: getattr(errno, name)
    for name in ("EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT")
}


def _logs(rule: models.RulePart) -> bool:
    return rule.log if "log" in rule.model_fields_set else rule.action == "deny"


def _ports(found: Sequence[Range]) -> tuple[Range, ...] | None:
    return (found[0],) if len(found) == 1 else merged(found) or None


@lru_cache(maxsize=256)
def _protocols(words: tuple[str, ...]) -> frozenset[Protocol] | None:
    return None if not words or "any" in words else frozenset(map(Protocol, words))


@lru_cache(maxsize=16)
def _hooks(words: tuple[str, ...]) -> frozenset[Hook]:
    return frozenset(map(Hook, words)) or _BOTH_HOOKS
