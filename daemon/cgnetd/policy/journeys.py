# SPDX-License-Identifier: Apache-2.0
"""Samples of calls that a rule rewrites: as they were made, and as they go on.

Enough of them to meet what a person would overlook, not all there are. Must not know what other rules say of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product

from .evaluate import Choose, rewritten
from .matching import UNIX
from .ranges import EVERYTHING, covers, within
from .types import Action, AddressRanges, Endpoint, Flow, Hook, Protocol, Rule, Section

_MAX_SAMPLES = 16  # of ports, and of addresses
_SOME_PORT = 1  # stands for whatever port a call has


@dataclass(frozen=True, slots=True)
class Journey:
    rule: Rule
    departure: Flow  # the call as it was made
    arrival: Flow  # the call as the rule sends it on

    @property
    def is_of_any_port(self) -> bool:
        """Whether the ports are no more than samples, so that only the addresses tell anything."""
        same = self.departure.port == self.arrival.port == _SOME_PORT
        return same and self.rule.ports is None and _keeps_port(self.rule)


def journeys(rule: Rule, before: Sequence[Rule]) -> Iterator[Journey]:
    """Samples for a rule that redirects or rewrites; `before` are the rules whose denials are of interest."""
    for departure in _departures(rule, [other for other in before if other.action is Action.DENY]):
        for arrival in _arrivals(rule, departure):
            yield Journey(rule, departure, arrival)


def onward(rule: Rule, call: Flow) -> Iterator[Journey]:
    """Where a call that the rule matches can go."""
    return (Journey(rule, call, arrival) for arrival in _arrivals(rule, call))


def _arrivals(rule: Rule, departure: Flow) -> Iterator[Flow]:
    service = rule.redirect.service if rule.redirect else None
    backends = [backend.endpoint for backend in service.backends] if service else []
    choices = [_always(endpoint) for endpoint in backends if endpoint.family == departure.family]
    for choose in choices if service else [_always(None)]:
        arrival = rewritten(rule, departure, choose)
        if arrival:
            yield arrival


def _always(endpoint: Endpoint | None) -> Choose:
    return lambda service, family: endpoint


def _departures(rule: Rule, denying: Sequence[Rule]) -> Iterator[Flow]:
    hooks = sorted(rule.hooks, key=lambda hook: hook.value) or [Hook.BIND]
    if rule.unix is not None:
        yield from (Flow(hook, Protocol.OTHER, UNIX, 0, 0, name=_plain(rule.unix[0])) for hook in hooks)
        return
    protocols = [p for p in (Protocol.TCP, Protocol.UDP) if rule.protocols is None or p in rule.protocols]
    ports = _ports(rule, denying)
    for hook, protocol, family in product(hooks, protocols, (4, 6)):
        for address, port in product(_addresses(rule, family, denying), ports):
            yield Flow(hook, protocol, family, address, port)


def _plain(glob: bytes) -> bytes:
    """Some name for a call that the glob stands for; where it goes does not depend on it."""
    return glob.replace(b"**", b"x").replace(b"*", b"x").replace(b"?", b"x")


def _ports(rule: Rule, denying: Sequence[Rule]) -> tuple[int, ...]:
    """Ports that the rule matches; more than one only if they are kept and so tell targets apart."""
    own = [first for first, _ in rule.ports] if rule.ports is not None else [_SOME_PORT]
    if rule.ports == ():
        own = [0]
    if not _keeps_port(rule):
        return (own[0],)
    named = (first for other in denying for first, _ in other.ports or ())
    wanted = (port for port in chain(own, named) if rule.ports is None or port == 0 or within(port, rule.ports))
    return tuple(dict.fromkeys(islice(wanted, _MAX_SAMPLES)))


def _keeps_port(rule: Rule) -> bool:
    if rule.rewrite:
        return rule.rewrite.port is None
    redirect = rule.redirect
    if redirect is None:
        return True
    backends = [backend.endpoint for backend in redirect.service.backends] if redirect.service else []
    return any(endpoint.port == 0 for endpoint in (*backends, redirect.v4, redirect.v6) if endpoint)


def _addresses(rule: Rule, family: int, denying: Sequence[Rule]) -> tuple[int, ...]:
    """Addresses that the rule matches; the first and the last, and those of denials where the address is kept."""
    own = _of_family(rule.addresses or EVERYTHING, family)
    if not own:
        return ()
    found = [own[0][0], own[-1][1]]
    if rule.section is Section.BIND and rule.rewrite and rule.rewrite.addresses.of(family) is None:
        named = (first for other in denying if other.addresses for first, _ in _of_family(other.addresses, family))
        found += [address for address in islice(named, _MAX_SAMPLES) if covers(rule.addresses, family, address)]
    return tuple(dict.fromkeys(found))


def _of_family(addresses: AddressRanges, family: int) -> Sequence[tuple[int, int]]:
    return addresses.v4 if family == 4 else addresses.v6
