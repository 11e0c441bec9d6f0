# SPDX-License-Identifier: Apache-2.0
"""Texts to a policy set: all or nothing, and every error of every file in one run.

Never raises for bad input. Must not know where texts come from: set files and users are asked for through callables.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from ..errors import Problem
from .addresses import Addresses, TooManyRangesError
from .build import build_policy
from .build_service import build_service, loops
from .complaints import problems_of
from .compose import compose
from .document import Document
from .doubts import doubts
from .fields import SERVICE, SET, Context, is_absolute_path
from .models import KINDS, AddressSetDocument, PolicyDocument
from .ranges import union
from .scalars import describe, shown
from .service_models import ServiceDocument
from .set_file import parse_set_file
from .suggest import did_you_mean
from .types import AddressRanges, AddressSet, Policy, PolicySet, Section, Service, Where

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
    sources: Sequence[Source], *, read_set: Callable[[str], bytes], find_user: Callable[[str], int]
) -> ParseResult:
    """The policy set of all sources together, or all that is wrong with them, sorted by place.

    `read_set(path)` gives the bytes of a set file and raises OSError; `find_user(name)` a UID and raises KeyError. Both
    are called once for each path or name.
    """
    with _collector_at_rest():
        return _Load(read_set, find_user).run(sources)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Without the cyclic collector, which would walk the hundred thousands of new objects again and again: a third
    of the time. Nothing here makes cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Load:
    """One run of `parse`: what was found so far."""

    def __init__(self, read_set: Callable[[str], bytes], find_user: Callable[[str], int]) -> None:
        self._read_set = read_set
        self._find_user = find_user
        self._problems: list[Problem] = []
        self._set_files: dict[str, AddressRanges] = {}  # by path, as far as they could be read

    def run(self, sources: Sequence[Source]) -> ParseResult:
        documents: dict[str, list[Document]] = {kind: [] for kind in KINDS}
        for source in sources:
            found, problems = compose(source.path, source.data)
            self._problems += problems
            for document in found:
                kind = self._kind(document)
                if kind is not None:
                    documents[kind].append(document)
        names = {kind: self._names(kind, found) for kind, found in documents.items()}
        context = Context(names["AddressSet"], names["Service"], self._find_user)
        sets = [read for document in documents["AddressSet"] if (read := self._address_set(document, context))]
        services = self._services(documents["Service"], context)
        addresses = Addresses(context.words, {found.name: found.ranges for found in sets}, services)
        policies, used = self._policies(documents["Policy"], context, addresses, services)
        return self._result(sources, policies, sets, services, used)

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

    def _address_set(self, document: Document, context: Context) -> AddressSet | None:
        files = self._files(document)
        read = self._validated(document, AddressSetDocument, context)
        if read is None:
            return None
        ranges = union([context.words[word] for word in read.spec.addresses] + files)
        return AddressSet(read.metadata.name, ranges, Where(document.file, *document.place(())), tuple(read.spec.files))

    def _files(self, document: Document) -> list[AddressRanges]:
        """The contents of a set's files, read also if the document is wrong elsewhere, so that all errors are told."""
        paths = _mapping(_mapping(document.data).get("spec")).get("files")
        found: list[AddressRanges] = []
        for index, path in enumerate(paths if isinstance(paths, list) else ()):
            if not isinstance(path, str) or not is_absolute_path(path):
                continue
            if path not in self._set_files:
                self._set_files[path] = self._set_file(path, document, index)
            found.append(self._set_files[path])
        return found

    def _set_file(self, path: str, document: Document, index: int) -> AddressRanges:
        try:
            ranges, problems = parse_set_file(path, self._read_set(path))
        except OSError as error:
            message = f"cannot read {path}: {error.strerror or error}"
            self._problems.append(document.problem(("spec", "files", index), message))
            return AddressRanges()
        self._problems += problems
        return ranges

    def _services(self, documents: list[Document], context: Context) -> dict[str, Service]:
        """The services of all documents that are right, by name."""
        read = [(doc, found) for doc in documents if (found := self._validated(doc, ServiceDocument, context))]
        services = {found.metadata.name: build_service(document, found) for document, found in read}
        self._problems += loops(read, services)
        return services

    def _policies(
        self, documents: list[Document], context: Context, addresses: Addresses, services: dict[str, Service]
    ) -> tuple[list[Policy], set[str]]:
        """The policies of all documents that are right, and the references to sets and services that they hold."""
        policies: list[Policy] = []
        used: set[str] = set()
        for document in documents:
            self._check_rule_names(document)
            read = self._validated(document, PolicyDocument, context)
            references = set(_references(read)) if read else set()
            if read is None or not addresses.know(references):
                continue
            used |= references
            try:
                policy, problems = build_policy(document, read, addresses, services)
            except TooManyRangesError as error:
                self._problems.append(document.problem(("spec",), str(error)))
                continue
            policies.append(policy)
            self._problems += problems
        return policies, used

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
        self,
        sources: Sequence[Source],
        policies: list[Policy],
        sets: list[AddressSet],
        services: dict[str, Service],
        used: set[str],
    ) -> ParseResult:
        set_files = tuple(sorted(self._set_files))
        if self._problems:
            return ParseResult(None, tuple(sorted(set(self._problems))), (), set_files)
        policy_set = PolicySet(
            policies=tuple(sorted(policies, key=lambda policy: policy.order)),
            sets=tuple(sorted(sets, key=lambda found: found.name)),
            files=(*(source.path for source in sources), *set_files),
            services=tuple(services[name] for name in sorted(services)),
        )
        return ParseResult(policy_set, (), tuple(doubts(policy_set, used)), set_files)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _references(policy: PolicyDocument) -> Iterator[str]:
    """The words `set:NAME` and `service:NAME` of all rules."""
    for egress in policy.spec.egress:
        targets = egress.redirect.to if egress.redirect else ()
        for word in (*egress.to, *egress.except_, *targets):
            if isinstance(word, str) and word.startswith((SET, SERVICE)):
                yield word
    for bind in policy.spec.bind:
        yield from (word for word in bind.addresses if word.startswith(SET))
