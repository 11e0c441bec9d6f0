# SPDX-License-Identifier: Apache-2.0
"""How one policy set differs from another: policies, rules and services, as JSON values.

Pure. Must not know which one is in force, nor what calls would get.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from cgnetd.datapath.live import ServiceRef
from cgnetd.datapath.refs import RuleRef
from cgnetd.datapath.rules import PolicyRef, RuleIndex
from cgnetd.service.fingerprint import Fingerprints, RuleKey
from cgnetd.service.words import endpoint_text

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)
Counts = Callable[[RuleRef], int]  # calls that a rule of the old set decided


@dataclass(frozen=True, slots=True)
class Side:
    """One set. `prints` None: what its rules match is not known."""

    index: RuleIndex
    prints: Fingerprints | None = None


def rule_changes(old: Side, new: Side, calls: Counts = lambda _: 0) -> dict[str, list[dict[str, Any]]]:
    """`added`, `removed`, `changed` rules. A rule is the same if policy, section and name are; `what` says in which
    ways a changed one is another: action, errno, log, to, match, order."""
    before, after = _rules(old.index), _rules(new.index)
    match_before, match_after = _numbers(old), _numbers(new)
    moved = _moved(before, after)
    changed = []
    for key in after.keys() & before.keys():
        what = list(_what(before[key], after[key]))
        if match_before and match_after and match_before[key] != match_after[key]:
            what.append("match")
        if key in moved:
            what.append("order")
        if what:
            rule = {**rule_json(after[key]), "calls": calls(before[key])}
            changed.append((after[key].rule_id, {**rule, "what": what, "before": rule_json(before[key])}))
    return {
        "added": [rule_json(after[key]) for key in after if key not in before],
        "removed": [{**rule_json(ref), "calls": calls(ref)} for key, ref in before.items() if key not in after],
        "changed": [rule for _, rule in sorted(changed, key=lambda pair: pair[0])],
    }


def policy_changes(old: Side, new: Side) -> dict[str, list[dict[str, Any]]]:
    """`added`, `removed`, `changed` policies; `what`: tier, priority, mode, subject (which holds `tcp` too)."""

    def what(before: PolicyRef, after: PolicyRef) -> list[str]:
        found = [name for name in ("tier", "priority") if getattr(before, name) != getattr(after, name)]
        found += ["mode"] if before.audit != after.audit else []
        if old.prints is None or new.prints is None:
            return found
        same = old.prints.policies[before.policy_id] == new.prints.policies[after.policy_id]
        return found if same else [*found, "subject"]

    return _changes(_policies(old.index), _policies(new.index), _policy_json, what)


def service_changes(old: Side, new: Side) -> dict[str, list[dict[str, Any]]]:
    """`added`, `removed`, `changed` services; a changed one tells its `backends`, `added`, `removed` and `changed`
    (their weights), and `what` else: errno, health, tcp."""
    return _changes(_services(old.index), _services(new.index), _service_json, _service_what, _backend_changes)


def rule_json(ref: RuleRef) -> dict[str, Any]:
    """A rule with its place and where it leads."""
    return {
        "policy": ref.policy,
        "rule": ref.rule,
        "file": ref.file,
        "line": ref.line,
        "action": ref.action,
        "to": ref.to,
    }


def _rules(index: RuleIndex) -> dict[RuleKey, RuleRef]:
    return {(ref.policy, ref.section, ref.rule): ref for ref in index.refs if ref.policy}


def _numbers(side: Side) -> dict[RuleKey, int]:
    if side.prints is None:
        return {}
    pairs = zip(side.index.refs, side.prints.rules, strict=True)
    return {(ref.policy, ref.section, ref.rule): number for ref, number in pairs}


def _what(before: RuleRef, after: RuleRef) -> Iterator[str]:
    return (name for name in ("action", "errno", "log", "to") if getattr(before, name) != getattr(after, name))


def _moved(before: Mapping[RuleKey, RuleRef], after: Mapping[RuleKey, RuleRef]) -> set[RuleKey]:
    """As few rules as possible whose moves make the one order into the other, in each list of rules."""
    found: set[RuleKey] = set()
    for _, group in groupby((key for key in after if key in before), key=lambda key: key[:2]):
        keys = list(group)
        kept = _longest_rising([before[key].rule_id for key in keys])
        found.update(key for place, key in enumerate(keys) if place not in kept)
    return found


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """The places of a longest rising subsequence."""
    tails: list[int] = []  # the least number that ends a rising run of each length, and its place
    places: list[int] = []
    previous: list[int] = []
    for place, number in enumerate(numbers):
        at = bisect_left(tails, number)
        tails[at : at + 1] = [number]
        places[at : at + 1] = [place]
        previous.append(places[at - 1] if at else -1)
    kept, place = set(), places[-1] if places else -1
    while place >= 0:
        kept.add(place)
        place = previous[place]
    return kept


def _changes(
    before: Mapping[_Key, _Item],
    after: Mapping[_Key, _Item],
    as_json: Callable[[_Item], dict[str, Any]],
    what: Callable[[_Item, _Item], list[str]],
    more: Callable[[_Item, _Item], dict[str, Any]] = lambda _before, _after: {},
) -> dict[str, list[dict[str, Any]]]:
    changed = []
    for key in after:
        if key in before and (found := what(before[key], after[key])):
            changed.append({**as_json(after[key]), "what": found, **more(before[key], after[key])})
    return {
        "added": [as_json(item) for key, item in after.items() if key not in before],
        "removed": [as_json(item) for key, item in before.items() if key not in after],
        "changed": changed,
    }


def _policies(index: RuleIndex) -> dict[str, PolicyRef]:
    return {ref.name: ref for ref in index.policies}


def _policy_json(ref: PolicyRef) -> dict[str, Any]:
    mode = "audit" if ref.audit else "enforce"
    place = {"file": ref.file, "line": ref.line}
    return {"policy": ref.name, "tier": ref.tier, "priority": ref.priority, "mode": mode, **place}


def _services(index: RuleIndex) -> dict[str, ServiceRef]:
    return {ref.name: ref for ref in index.live.services}


def _backends(service: ServiceRef) -> dict[str, int]:
    """Weights by endpoint."""
    refs = [backend for _, family in service.families() for backend in family.backends]
    return {endpoint_text(ref.address, ref.port) if ref.port else ref.address: ref.weight for ref in refs}


def _service_json(service: ServiceRef) -> dict[str, Any]:
    return {"service": service.name}


def _service_what(before: ServiceRef, after: ServiceRef) -> list[str]:
    pairs: Iterable[tuple[str, object, object]] = (
        ("backends", _backends(before), _backends(after)),
        ("errno", before.errno, after.errno),
        ("health", before.health, after.health),
        ("tcp", before.close_tcp, after.close_tcp),
    )
    return [name for name, one, other in pairs if one != other]


def _backend_changes(before: ServiceRef, after: ServiceRef) -> dict[str, Any]:
    one, other = _backends(before), _backends(after)
    return {
        "backends": {
            "added": [text for text in other if text not in one],
            "removed": [text for text in one if text not in other],
            "changed": [text for text in other if text in one and one[text] != other[text]],
        }
    }
