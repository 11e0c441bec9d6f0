# SPDX-License-Identifier: Apache-2.0
"""Checked policy documents to policies: defaults filled in, subjects to patterns, and the last checks of built rules.

What can be wrong with one value or one key was checked before; here is told what needs services and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import Problem
from . import models
from .addresses import Addresses
from .build_rules import bind_rules, egress_rules, parts_of, socket_rules
from .document import Document, Loc
from .families import gaps
from .fields import SERVICE
from .rule_models import EgressRule
from .types import Action, Pattern, Policy, Rule, Service, Subject, TcpSettings, Tier, Where


def build_policy(
    document: Document, read: models.PolicyDocument, addresses: Addresses, services: Mapping[str, Service]
) -> tuple[Policy, list[Problem]]:
    """The policy of a checked document all whose words are known, and what is wrong with it all the same.

    Raises TooManyRangesError.
    """
    spec = read.spec
    problems = list(_empty_parts(document, spec.egress, services))
    egress = list(egress_rules(document, spec.egress, addresses, services))
    bind = list(bind_rules(document, spec.bind, addresses))
    problems += _without_addresses(document, egress)
    problems += _without_addresses(document, bind)
    has_default = "default" in spec.model_fields_set
    policy = Policy(
        name=read.metadata.name,
        description=read.metadata.description,
        subject=Subject(_patterns(spec.subject), _patterns(spec.subject.exclude) if spec.subject.exclude else ()),
        where=Where(document.file, *document.place(())),
        tier=Tier[spec.tier.upper()],
        priority=spec.priority,
        audit=spec.mode == "audit",
        egress=tuple(rule for _, rule in egress),
        bind=tuple(rule for _, rule in bind),
        socket=tuple(socket_rules(document, spec.socket)),
        default_egress=Action(spec.default.egress),
        default_bind=Action(spec.default.bind),
        default_socket=Action(spec.default.socket),
        default_where=Where(document.file, *document.place(("spec", "default"), key=True)) if has_default else None,
        tcp=_tcp(spec.tcp) if spec.tcp else None,
    )
    return policy, problems


def _patterns(lists: models.SubjectLists) -> tuple[Pattern, ...]:
    return (*lists.units, *lists.user_units, *lists.slices, *lists.users, *lists.cgroups)


def _tcp(part: models.TcpPart) -> TcpSettings:
    return TcpSettings(part.congestion, part.initial_rto_ms, part.initial_window)


def _empty_parts(document: Document, rules: list[EgressRule], services: Mapping[str, Service]) -> Iterator[Problem]:
    """A problem for each service of which a rule's own ports and protocols leave nothing."""
    for index, rule in enumerate(rules):
        for place, word in enumerate(rule.to):
            if word.startswith(SERVICE) and not parts_of(rule, word, services):
                ports = services[word.removeprefix(SERVICE)].ports
                listed = ", ".join(f"{protocol.value} {port}" for protocol, port in ports)
                message = f'"{word}": the rule\'s ports and protocols leave nothing of it: it has {listed}'
                yield document.problem(("spec", "egress", index, "to", place), message)


def _without_addresses(document: Document, rules: list[tuple[int, Rule]]) -> Iterator[Problem]:
    """A problem for each family that a rule can match and has no address for, once for each rule as written."""
    told: set[tuple[Loc, str]] = set()
    for index, rule in rules:
        if rule.redirect is None and rule.source is None and rule.rewrite is None:  # nearly all
            continue
        for key, message in gaps(rule):
            loc: Loc = ("spec", rule.section.value, index, *key)
            if (loc, message) not in told:
                told.add((loc, message))
                yield document.problem(loc, message)
