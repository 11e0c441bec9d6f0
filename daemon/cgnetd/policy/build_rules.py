# SPDX-License-Identifier: Apache-2.0
"""Checked rules to the nouns of `types`: words to addresses, lists to sets, a rule on services to one for each.

Must not know what can be wrong with a rule: everything here was checked before.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .addresses import Addresses
from .document import Document
from .fields import SERVICE
from .ranges import merged, subtracted
from .rewriting_fields import Local
from .rule_models import BindRule, EgressRule, OptionsPart, RedirectPart, RewritePart, RulePart, SocketRule
from .types import (
    Action,
    Endpoint,
    Hook,
    LocalAddresses,
    Protocol,
    Range,
    Redirect,
    Rewrite,
    Rule,
    Section,
    Service,
    SocketOptions,
    SocketType,
    Where,
)

_BOTH_HOOKS = frozenset({Hook.CONNECT, Hook.SENDMSG})
_REWRITABLE = frozenset({Protocol.TCP, Protocol.UDP})
_ACTIONS = {action.value: action for action in Action}
_FAMILIES = {"inet": 4, "inet6": 6}
_ERRNOS = {
    name: getattr(errno, name)
    for name in ("EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT")
}


@dataclass(frozen=True, slots=True)
class Part:
    """What a rule says of one service and protocol: its ports are those that the rule leaves of the service's."""

    service: Service
    protocol: Protocol
    ports: tuple[Range, ...]


def parts_of(rule: EgressRule, word: str, services: Mapping[str, Service]) -> list[Part]:
    """The parts of a rule for a word `service:NAME` of its `to`; none if the rule's ports and protocols leave none."""
    service = services[word.removeprefix(SERVICE)]
    protocols, ports = protocols_of(rule), _ports(rule.ports)
    found: list[Part] = []
    for protocol in (Protocol.TCP, Protocol.UDP):
        left = merged((port, port) for of, port in service.ports if of is protocol)
        if ports is not None:
            left = subtracted(left, subtracted(left, ports))
        if left and (protocols is None or protocol in protocols):
            found.append(Part(service, protocol, left))
    return found


def egress_rules(
    document: Document, rules: Sequence[EgressRule], addresses: Addresses, services: Mapping[str, Service]
) -> Iterator[tuple[int, Rule]]:
    """The rules and the index that each has in the document. Raises TooManyRangesError."""
    for index, (rule, (line, column)) in enumerate(zip(rules, document.places(("spec", "egress")), strict=True)):
        words = [word for word in rule.to if not word.startswith(SERVICE)]
        made = Rule(
            name=rule.name or f"egress[{index}]",
            section=Section.EGRESS,
            action=_ACTIONS[rule.action],
            where=Where(document.file, line, column),
            addresses=addresses.of(words, rule.except_),
            protocols=protocols_of(rule),
            ports=_ports(rule.ports),
            hooks=_hooks(tuple(rule.hooks)),
            errno=_ERRNOS[rule.errno],
            log=_logs(rule),
            redirect=_redirect(rule.redirect, services) if rule.redirect else None,
            source=local_addresses(rule.source.address) if rule.source else None,
            unix=tuple(dict.fromkeys(glob for globs in rule.unix for glob in globs)) or None,
        )
        if len(words) == len(rule.to):
            yield index, made
        else:
            yield from ((index, one) for one in _expanded(rule, made, addresses, services))


def _expanded(rule: EgressRule, made: Rule, addresses: Addresses, services: Mapping[str, Service]) -> Iterator[Rule]:
    """A rule on services as one for each service and protocol, behind `made` for the words that are none."""
    named = dict.fromkeys(word for word in rule.to if word.startswith(SERVICE))
    parts = [(word, part) for word in named for part in parts_of(rule, word, services)]
    has_other_words = any(word not in named for word in rule.to)
    if has_other_words:
        yield made
    for word, part in parts:
        yield made._replace(
            name=made.name if not has_other_words and len(parts) == 1 else f"{made.name}/{word}/{part.protocol.value}",
            addresses=addresses.of([word], rule.except_),
            protocols=_only(part.protocol),
            ports=part.ports,
            redirect=made.redirect or (Redirect(service=part.service) if made.action is Action.REDIRECT else None),
        )


def bind_rules(document: Document, rules: Sequence[BindRule], addresses: Addresses) -> Iterator[tuple[int, Rule]]:
    """The rules and their indexes. Raises TooManyRangesError."""
    for index, (rule, (line, column)) in enumerate(zip(rules, document.places(("spec", "bind")), strict=True)):
        made = Rule(
            name=rule.name or f"bind[{index}]",
            section=Section.BIND,
            action=_ACTIONS[rule.action],
            where=Where(document.file, line, column),
            addresses=addresses.of(rule.addresses, ()),
            protocols=protocols_of(rule),
            ports=merged([found for found in rule.ports if found]) if rule.ports else None,
            ephemeral=None in rule.ports,
            errno=_ERRNOS[rule.errno],
            log=_logs(rule),
            rewrite=_rewrite(rule.rewrite) if rule.rewrite else None,
            privileged=rule.privileged,
        )
        yield index, made


def socket_rules(document: Document, rules: Sequence[SocketRule]) -> Iterator[Rule]:
    for index, (rule, (line, column)) in enumerate(zip(rules, document.places(("spec", "socket")), strict=True)):
        yield Rule(
            name=rule.name or f"socket[{index}]",
            section=Section.SOCKET,
            action=_ACTIONS[rule.action],
            where=Where(document.file, line, column),
            errno=_ERRNOS[rule.errno],
            log=_logs(rule),
            families=frozenset(_FAMILIES[word] for word in rule.families) or None,
            types=frozenset(map(SocketType, rule.types)) or None,
            options=_options(rule.options) if rule.options else None,
        )


def _logs(rule: RulePart) -> bool:
    return rule.log if "log" in rule.model_fields_set else rule.action == "deny"


def protocols_of(rule: EgressRule | BindRule) -> frozenset[Protocol] | None:
    """The protocols that the rule matches, None for all. What rewrites or has a source is for TCP and UDP alone."""
    found = _protocols(tuple(rule.protocols))
    has_source = isinstance(rule, EgressRule) and rule.source is not None
    is_limited = (rule.action in ("redirect", "rewrite") or has_source) and not _is_on_names(rule)
    return _REWRITABLE if found is None and is_limited else found


def _is_on_names(rule: EgressRule | BindRule) -> bool:
    return isinstance(rule, EgressRule) and bool(rule.unix)


def _ports(found: Sequence[Range]) -> tuple[Range, ...] | None:
    return (found[0],) if len(found) == 1 else merged(found) or None


@lru_cache(maxsize=256)
def _protocols(words: tuple[str, ...]) -> frozenset[Protocol] | None:
    return None if not words or "any" in words else frozenset(map(Protocol, words))


@lru_cache(maxsize=16)
def _only(protocol: Protocol) -> frozenset[Protocol]:
    return frozenset({protocol})


@lru_cache(maxsize=16)
def _hooks(words: tuple[str, ...]) -> frozenset[Hook]:
    return frozenset(map(Hook, words)) or _BOTH_HOOKS


def _redirect(part: RedirectPart, services: Mapping[str, Service]) -> Redirect:
    endpoints = {target.family: target for target in part.to if isinstance(target, Endpoint)}
    names = [target.removeprefix(SERVICE) for target in part.to if isinstance(target, str)]
    return Redirect(endpoints.get(4), endpoints.get(6), services[names[0]] if names else None, part.unix or None)


def local_addresses(found: Sequence[Local]) -> LocalAddresses:
    of_family = dict(found)
    return LocalAddresses(of_family.get(4), of_family.get(6))


def _rewrite(part: RewritePart) -> Rewrite:
    return Rewrite(local_addresses(part.address), part.port)


def _options(part: OptionsPart) -> SocketOptions:
    return SocketOptions(part.mark, part.priority, part.device)
