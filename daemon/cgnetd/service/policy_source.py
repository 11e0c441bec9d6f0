# SPDX-License-Identifier: Apache-2.0
"""The policy set that the files ask for: read, parsed and compiled, again only when a file changed.

All or nothing: a set with one mistake is no set, and what was asked for before stays asked for. Must not know the
kernel.
"""

from __future__ import annotations

import hashlib
import pwd
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cgnetd.datapath.cache import BlobCache
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.errors import PolicyError, Problem
from cgnetd.policy.load import ParseResult, Source, parse
from cgnetd.policy.types import Action, PolicySet
from cgnetd.service.files import BeingWritten, FileContent, Stamp, read_whole, stamp
from cgnetd.service.fingerprint import Fingerprints, fingerprints
from cgnetd.service.policy_files import Reading, list_policies, read_policies
from cgnetd.service.unit_files import alias_doubts

_USERS = "/etc/passwd"  # `users:` are looked up there
_SETTLED_NS = 50_000_000  # a younger file can change again without a new time stamp


Find = Callable[[PolicySet], tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the files ask for.

    `image` is of the last set without mistakes, None before there was one; `weaknesses` are what was found in that set.
    `problems` are of the files as they are now: if there are any, they are not what `image` is of. The set itself is
    not kept: it is an object for every rule and prefix.
    """

    image: Image | None = None
    fingerprints: Fingerprints = field(default_factory=Fingerprints)  # of that set
    weaknesses: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    set_files: tuple[str, ...] = ()
    writing: tuple[str, ...] = ()  # files that could not be read yet


@dataclass(slots=True)
class _Inputs:
    """What the last answer was made of: to know that it still holds."""

    stamps: dict[str, Stamp] = field(default_factory=dict)
    read_ns: int = 0
    digest: bytes = b""

    def hold(self, paths: Iterable[str]) -> bool:
        """Whether these are the paths, and nothing about them changed."""
        newest = max((s.mtime_ns for s in self.stamps.values()), default=0)
        if newest > self.read_ns - _SETTLED_NS:
            return False
        return {path: stamp(path) for path in paths} == self.stamps


class PolicySource:
    """Policy directories as a source of images. Keeps compiled parts of unchanged policies."""

    def __init__(
        self,
        directories: Sequence[str],
        default_action: Action,
        limit_cells: int,
        *,
        find_weaknesses: Find = lambda _: (),
        find_refusals: Find = lambda _: (),
    ) -> None:
        """`find_refusals`: asked about each set that has no mistakes; what it finds are some. `find_weaknesses`: asked
        about each set that is good then."""
        self.directories = tuple(directories)
        self._find_weaknesses = find_weaknesses
        self._find_refusals = find_refusals
        self._default_action = default_action
        self._limit_cells = limit_cells
        self._cache = BlobCache()
        self._inputs = _Inputs()
        self._users: dict[str, int | None] = {}
        self.asked = Asked()

    def look(self, *, force: bool = False) -> Asked:
        """What is asked for now. `force`: read even if no file seems to have changed, and look users up again.

        What was read is parsed only if it differs from what was parsed last. Never raises.
        """
        if not force and not self.asked.writing and self._inputs.stamps and self._inputs.hold(self._paths()):
            return self.asked
        read_ns = time.time_ns()
        sets = _SetFiles()
        reading = read_policies(self.directories)
        for path in self.asked.set_files:
            sets.preload(path)
        digest = _digest(reading, sets)
        moved = force and any(_uid(name) != uid for name, uid in self._users.items())
        if moved or digest != self._inputs.digest or self.asked.writing:
            self.asked = self._load(reading, sets)
        self._inputs = _Inputs(self._stamps(reading, sets), read_ns, _digest(reading, sets))
        return self.asked

    def paths(self) -> tuple[str, ...]:
        """Every file that mattered at the last look."""
        return tuple(self._inputs.stamps)

    def _paths(self) -> tuple[str, ...]:
        """Every path that matters now; missing ones too, for they may come."""
        return (*list_policies(self.directories).paths, *self.asked.set_files, _USERS)

    def _stamps(self, reading: Reading, sets: _SetFiles) -> dict[str, Stamp]:
        """Stamps of what was read, from the reading itself: the file may be another one by now."""
        read = {content.path: content.stamp for content in (*reading.files, *sets.contents.values())}
        return {path: read.get(path) or stamp(path) for path in self._paths()}

    def _load(self, reading: Reading, sets: _SetFiles) -> Asked:
        if reading.writing:  # what the other files lack may stand in the one that cannot be read yet
            return replace(self.asked, problems=reading.problems, writing=reading.writing)
        parsed = self._parse(reading, sets)
        problems = (*reading.problems, *parsed.problems)
        if not problems and parsed.policy_set is not None:
            problems = self._find_refusals(parsed.policy_set)
        image = None
        if not problems and parsed.policy_set is not None:
            try:
                image = self._compile(parsed.policy_set)
            except PolicyError as error:
                problems = error.problems
        warnings = tuple(sorted((*reading.warnings, *parsed.warnings)))
        if image is not None and parsed.policy_set is not None:
            weaknesses = self._find_weaknesses(parsed.policy_set)
            warnings = tuple(sorted((*warnings, *alias_doubts(parsed.policy_set))))
            prints = fingerprints(parsed.policy_set, image.index)
            return Asked(image, prints, weaknesses, warnings=warnings, set_files=parsed.set_files)
        return replace(
            self.asked,
            problems=tuple(sorted(problems)),
            warnings=warnings,
            set_files=parsed.set_files,
            writing=tuple(sets.writing),
        )

    def _parse(self, reading: Reading, sets: _SetFiles) -> ParseResult:
        self._users.clear()
        return parse(
            [Source(content.path, content.data) for content in reading.files],
            read_set=sets.read,
            find_user=self._find_user,
        )

    def _find_user(self, name: str) -> int:
        uid = self._users[name] = _uid(name)
        if uid is None:
            raise KeyError(name)
        return uid

    def _compile(self, policy_set: PolicySet) -> Image:
        # The number is given when the image is put into a slot; the digest does not depend on it.
        return compile_image(
            policy_set,
            default_action=self._default_action,
            generation=1,
            cache=self._cache,
            limit_cells=self._limit_cells,
        )


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


class _SetFiles:
    """Set files read during one look, each once."""

    def __init__(self) -> None:
        self.contents: dict[str, FileContent] = {}
        self.writing: list[str] = []
        self._failed: dict[str, OSError] = {}

    def preload(self, path: str) -> None:
        """Read a file that is likely to be asked for; a failure is told when it is."""
        try:
            self.contents[path] = read_whole(path)
        except OSError as error:
            self._failed[path] = error
            if isinstance(error, BeingWritten):
                self.writing.append(path)

    def read(self, path: str) -> bytes:
        """The content. Raises OSError."""
        if path not in self.contents and path not in self._failed:
            self.preload(path)
        if path in self._failed:
            raise self._failed[path]
        return self.contents[path].data

    def failures(self) -> Iterable[str]:
        return (f"{path}: {error}" for path, error in sorted(self._failed.items()))


def _digest(reading: Reading, sets: _SetFiles) -> bytes:
    """Of everything that was read, to skip parsing what only has a new time stamp."""
    digest = hashlib.blake2b(repr(stamp(_USERS)).encode(), digest_size=16)
    for problem in reading.problems:
        digest.update(str(problem).encode("utf-8", "surrogateescape"))
    for content in (*reading.files, *(sets.contents[path] for path in sorted(sets.contents))):
        digest.update(f"{content.path}\0{len(content.data)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content.data)
    for failure in sets.failures():
        digest.update(failure.encode("utf-8", "surrogateescape"))
    return digest.digest()
