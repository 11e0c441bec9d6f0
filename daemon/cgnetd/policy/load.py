# SPDX-License-Identifier: Apache-2.0
"""Texts to a policy set: all or nothing, and every error of every file in one run.

Never raises for bad input. Must not know where texts come from: set files and users are asked for through callables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TypeVar

from pydantic import ValidationError

from ..errors import Problem
from .addresses import Addresses, TooManyRangesError
from .build import build_policy
from .build_service import build_service, loops
from .collector import collector_at_rest
from .complaints import problems_of
from .compose import compose
from .document import Document
from .doubts import doubts
from .fields import SERVICE, SET, Context
from .known import Known, KnownFile
from .load_sets import SetReader
from .models import KINDS, AddressSetDocument, PolicyDocument
from .scalars import describe, shown
from .service_models import ServiceDocument
from .suggest import did_you_mean
from .types import AddressSet, Policy, PolicySet, Section, Service

_REFERENCES = (SET, SERVICE)
_MOST_PROBLEMS = 10_000  # told one by one, the others by number: whoever is told must be able to take it
_Model = TypeVar("_Model", PolicyDocument, AddressSetDocument, ServiceDocument)


@dataclass(frozen=True, slots=True)
class Source:
    """A policy file: its path as messages name it, and its bytes."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ParseResult:
    """`policy_set` is None if there are problems. `set_files` are the files that sets name, readable or not."""

    policy_set: PolicySet | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    set_files: tuple[str, ...] = ()


def parse(
    sources: Sequence[Source],
    *,
    read_set: Callable[[str], bytes],
    find_user: Callable[[str], int],
    known: Known | None = None,
    unchanged: Mapping[str, bytes] | None = None,
) -> ParseResult:
    """The policy set of all sources together, or all that is wrong with them, sorted by place.

    `read_set(path)` gives the bytes of a set file and raises OSError; `find_user(name)` a UID and raises KeyError. Both
    must give the same each time.

    `known`: what earlier calls found, so that policies of files that did not change are the same objects as before; it
    is brought up to date unless there are problems. `unchanged`: digests of set files, as far as they were told
    already, by path: those that are known by them are not read.
    """
    with collector_at_rest():  # nothing here makes cycles
        load = _Load(read_set, find_user, known or Known(), unchanged or {})
        try:
            return load.run(sources)
        except _StartOverError:
            return _Load(read_set, find_user, Known(), {}).run(sources)


class _StartOverError(Exception):
    """What is wrong can only be told, with the places that it has to do with, if every file is read again."""


class _Load:
    """One run of `parse`: what was found so far."""

    def __init__(
        self,
        read_set: Callable[[str], bytes],
        find_user: Callable[[str], int],
        known: Known,
        unchanged: Mapping[str, bytes],
    ) -> None:
        self._find_user = cache(find_user)
        self._known = known
        self._sets = SetReader(read_set, unchanged, known)
        self._problems: list[Problem] = []
        self._documents: dict[str, list[Document]] = {kind: [] for kind in KINDS}
        self._mixed: set[str] = set()  # paths of files that hold other things than policies
        self._used: set[str] = set()  # references to sets and services
        self._remembers = False

    def run(self, sources: Sequence[Source]) -> ParseResult:
        kept = {source.path: found for source in sources if (found := self._known.file(source.path, source.data))}
        self._compose(source for source in sources if source.path not in kept)
        names = {kind: self._names(kind, self._documents[kind]) for kind in ("AddressSet", "Service")}
        context = Context(names["AddressSet"], names["Service"], self._find_user)
        sets = self._address_sets(context)
        services = self._services(self._documents["Service"], context)
        addresses = Addresses(context.words, {found.name: found.ranges for found in sets}, services)
        stale = {path for path, found in kept.items() if not found.holds(addresses.sets, services, self._find_user)}
        kept = {path: found for path, found in kept.items() if path not in stale}
        self._remembers = bool(kept)
        self._compose(source for source in sources if source.path in stale)
        place = {source.path: number for number, source in enumerate(sources)}
        self._documents["Policy"].sort(key=lambda document: place[document.file])  # the first one of a name is the same
        self._check_policy_names(kept.values())
        policies = [*self._keep(kept.values(), addresses), *self._policies(sources, context, addresses, services)]
        self._problems += self._sets.problems
        return self._result(sources, policies, sets, services)

    def _compose(self, sources: Iterable[Source]) -> None:
        """Read the documents of these files."""
        for source in sources:
            found, problems = compose(source.path, source.data)
            self._problems += problems
            kinds = [self._kind(document) for document in found]
            for kind, document in zip(kinds, found, strict=True):
                if kind is not None:
                    self._documents[kind].append(document)
            if problems or set(kinds) != {"Policy"}:
                self._mixed.add(source.path)

    def _kind(self, document: Document) -> str | None:
        """The kind of a document that can be looked into."""
        accepted = f"accepted: {', '.join(KINDS)}"
        if not isinstance(document.data, dict):
            self._problems.append(document.problem((), f"must be a mapping, is {describe(document.data)}"))
            return None
        if "kind" not in document.data:
            self._problems.append(document.problem(("kind",), f"is missing; {accepted}"))
            return None
        kind = document.data["kind"]
        if isinstance(kind, str) and kind in KINDS:
            return kind
        near = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        message = f"{describe(kind)} is not a kind of document{near}; {accepted}"
        self._problems.append(document.problem(("kind",), message))
        return None

    def _names(self, kind: str, documents: list[Document]) -> dict[str, Document]:
        """All documents of a kind by name, right or wrong: a reference to a wrong one is no second error."""
        first: dict[str, Document] = {}
        for document in documents:
            name = _mapping(_mapping(document.data).get("metadata")).get("name")
            if not isinstance(name, str):
                continue
            if name in first:
                place = f"{first[name].file}:{first[name].place(('metadata', 'name'))[0]}"
                message = f'{kind} "{shown(name)}" is a duplicate name: first at {place}'
                self._problems.append(document.problem(("metadata", "name"), message))
            first.setdefault(name, document)
        return first

    def _address_sets(self, context: Context) -> list[AddressSet]:
        """The sets of all documents that are right."""
        found: list[AddressSet] = []
        for document in self._documents["AddressSet"]:
            files = self._sets.read_files(document)
            read = self._validated(document, AddressSetDocument, context)
            if read is not None:
                found.append(self._sets.build(document, read, files, context.words))
        return found

    def _services(self, documents: list[Document], context: Context) -> dict[str, Service]:
        """The services of all documents that are right, by name."""
        read = [(doc, found) for doc in documents if (found := self._validated(doc, ServiceDocument, context))]
        services = {found.metadata.name: build_service(document, found) for document, found in read}
        self._problems += loops(read, services)
        return services

    def _check_policy_names(self, kept: Collection[KnownFile]) -> None:
        """Tell duplicate names. Raises _StartOverError if one is in a file that was not read again."""
        fresh = self._names("Policy", self._documents["Policy"])
        names = [policy.name for found in kept for policy in found.policies]
        if len({*names, *fresh}) < len(names) + len(fresh):
            raise _StartOverError

    def _keep(self, kept: Collection[KnownFile], addresses: Addresses) -> list[Policy]:
        """The policies of files that are as they were."""
        policies: list[Policy] = []
        for found in kept:
            policies += found.policies
            self._used |= found.references
            try:
                addresses.keep(found.lists)
            except TooManyRangesError as error:
                raise _StartOverError from error
        return policies

    def _policies(
        self, sources: Sequence[Source], context: Context, addresses: Addresses, services: dict[str, Service]
    ) -> Iterator[Policy]:
        """The policies of all documents that are right. Files in which everything is right are remembered."""
        data = {source.path: source.data for source in sources}
        for path, group in groupby(self._documents["Policy"], key=lambda document: document.file):
            documents, problems = list(group), len(self._problems)
            context.users, addresses.asked = {}, {}  # of this file alone
            made = [made for document in documents if (made := self._policy(document, context, addresses, services))]
            yield from (policy for policy, _ in made)
            references = frozenset(word for _, words in made for word in words)
            self._used |= references
            if len(made) == len(documents) and len(self._problems) == problems and path not in self._mixed:
                self._known.files[path] = KnownFile(
                    data[path],
                    tuple(policy for policy, _ in made),
                    references,
                    {name: addresses.sets[name] for name in _names(references, SET)},
                    {name: services[name] for name in _names(references, SERVICE)},
                    context.users,
                    addresses.asked,
                )

    def _policy(
        self, document: Document, context: Context, addresses: Addresses, services: dict[str, Service]
    ) -> tuple[Policy, set[str]] | None:
        """The policy of a document, and its references to sets and services, all of which are right."""
        self._check_rule_names(document)
        read = self._validated(document, PolicyDocument, context)
        references = set(_references(read)) if read else set()
        if read is None or not addresses.know(references):
            return None
        try:
            policy, problems = build_policy(document, read, addresses, services)
        except TooManyRangesError as error:
            if self._remembers:  # then it depends on what was read when, which policy is the one too many
                raise _StartOverError from error
            self._problems.append(document.problem(("spec",), str(error)))
            return None
        self._problems += problems
        return policy, references

    def _validated(self, document: Document, model: type[_Model], context: Context) -> _Model | None:
        try:
            return model.model_validate(document.data, context=context)
        except ValidationError as error:
            self._problems += problems_of(document, model, error)
            return None

    def _check_rule_names(self, document: Document) -> None:
        spec = _mapping(_mapping(document.data).get("spec"))
        for section in Section:
            rules = spec.get(section.value)
            first: dict[str, int] = {}
            for index, rule in enumerate(rules if isinstance(rules, list) else ()):
                name = _mapping(rule).get("name")
                if isinstance(name, str) and first.setdefault(name, index) != index:
                    message = f'"{shown(name)}" is a duplicate name: first at {section.value}[{first[name]}]'
                    self._problems.append(document.problem(("spec", section.value, index, "name"), message))

    def _result(
        self, sources: Sequence[Source], policies: list[Policy], sets: list[AddressSet], services: dict[str, Service]
    ) -> ParseResult:
        set_files = tuple(sorted(self._sets.files))
        if self._problems:
            return ParseResult(None, _told(sorted(set(self._problems))), (), set_files)
        policy_set = PolicySet(
            policies=tuple(sorted(policies, key=lambda policy: policy.order)),
            sets=tuple(sorted(sets, key=lambda found: found.name)),
            files=(*(source.path for source in sources), *set_files),
            services=tuple(services[name] for name in sorted(services)),
        )
        warnings = tuple(doubts(policy_set, self._used, self._known.doubts))
        self._known.retain(
            files={source.path for source in sources},
            set_files=set(set_files),
            sets={found.name for found in sets},
            policies=policies,
        )
        return ParseResult(policy_set, (), warnings, set_files)


def _told(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """As many problems as are told, and how many there are besides, at the place of the first of those."""
    if len(problems) <= _MOST_PROBLEMS:
        return tuple(problems)
    next_one = problems[_MOST_PROBLEMS]
    rest = f"and {len(problems) - _MOST_PROBLEMS} more mistakes from here on"
    return *problems[:_MOST_PROBLEMS], Problem(next_one.file, next_one.line, next_one.column, "", rest)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _names(references: Iterable[str], prefix: str) -> set[str]:
    """The names behind the words that begin with `prefix`."""
    return {word.removeprefix(prefix) for word in references if word.startswith(prefix)}


def _references(policy: PolicyDocument) -> Iterator[str]:
    """The words `set:NAME` and `service:NAME` of all rules."""
    for egress in policy.spec.egress:
        for word in egress.to:
            if word.startswith(_REFERENCES):
                yield word
        if egress.except_:
            yield from (word for word in egress.except_ if word.startswith(_REFERENCES))
        if egress.redirect:
            yield from (word for word in egress.redirect.to if isinstance(word, str) and word.startswith(_REFERENCES))
    for bind in policy.spec.bind:
        yield from (word for word in bind.addresses if word.startswith(SET))
