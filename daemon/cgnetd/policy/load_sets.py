# SPDX-License-Identifier: Apache-2.0
"""Address sets of documents, with the set files that they name, each read once.

Must not know of policies, nor where files are: their bytes are asked for through a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..errors import Problem
from .document import Document, Loc
from .fields import is_absolute_path
from .known import Known, digest_of
from .models import AddressSetDocument
from .ranges import MAX_RANGES, size, union
from .set_file import parse_set_file
from .types import AddressRanges, AddressSet, Where


@dataclass(slots=True)
class SetReader:
    """`files`: the contents of set files by path, none for one that could not be read; grows with each set. So does
    `problems`. `known` is read and brought up to date."""

    read_set: Callable[[str], bytes]
    unchanged: Mapping[str, bytes]  # digests of files that need not be read if they are known by them
    known: Known
    files: dict[str, AddressRanges] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _counted: dict[int, AddressRanges] = field(default_factory=dict)  # by identity: what is held once counts once
    _ranges: int = 0

    def read_files(self, document: Document) -> list[AddressRanges]:
        """The contents of a set's files, read also if the document is wrong elsewhere, so that all errors are told."""
        data = document.data
        spec = data.get("spec") if isinstance(data, dict) else None
        paths = spec.get("files") if isinstance(spec, dict) else None
        found: list[AddressRanges] = []
        for index, path in enumerate(paths if isinstance(paths, list) else ()):
            if not isinstance(path, str) or not is_absolute_path(path):
                continue
            if path not in self.files:
                self.files[path] = self._held(self._read(path, document, index), document, ("spec", "files", index))
            found.append(self.files[path])
        return found

    def build(
        self,
        document: Document,
        read: AddressSetDocument,
        files: list[AddressRanges],
        words: Mapping[str, AddressRanges],
    ) -> AddressSet:
        """The set of a checked document; one that is made of what it was made of before has the same ranges object."""
        name, spelt = read.metadata.name, tuple(read.spec.addresses)
        ranges = AddressRanges() if self._is_full else self.known.union(name, spelt, files)
        if ranges is None:
            ranges = union([words[word] for word in spelt] + files)
            if not files:  # never the very object of a word: what is known of the set would not be it the next time
                ranges = replace(ranges)
            self.known.learn_union(name, spelt, files, ranges)
        ranges = self._held(ranges, document, ("spec",))
        return AddressSet(name, ranges, Where(document.file, *document.place(())), tuple(read.spec.files))

    @property
    def _is_full(self) -> bool:
        return self._ranges > MAX_RANGES

    def _held(self, ranges: AddressRanges, document: Document, loc: Loc) -> AddressRanges:
        """The same, or nothing if that is too much beside all others, which is told of the first one."""
        if id(ranges) in self._counted:
            return ranges
        was_full = self._is_full
        self._ranges += size(ranges)
        if not self._is_full:
            self._counted[id(ranges)] = ranges
            return ranges
        if not was_full:
            self.problems.append(document.problem(loc, f"the addresses of all sets make more than {MAX_RANGES} ranges"))
        return AddressRanges()

    def _read(self, path: str, document: Document, index: int) -> AddressRanges:
        if self._is_full:  # nothing of it would be kept
            return AddressRanges()
        known = self.known.set_file(path, self.unchanged.get(path))
        if known is not None:
            return known
        try:
            data = self.read_set(path)
        except OSError as error:
            message = f"cannot read {path}: {error.strerror or error}"
            self.problems.append(document.problem(("spec", "files", index), message))
            return AddressRanges()
        digest = digest_of(data)
        known = self.known.set_file(path, digest)
        if known is not None:
            return known
        ranges, problems = parse_set_file(path, data)
        self.problems += problems
        if not problems:
            self.known.learn_set_file(path, digest, ranges)
        return ranges
