# SPDX-License-Identifier: Apache-2.0
"""The policy set that the files ask for: read, parsed and compiled, again only when a file changed.

All or nothing: a set with one mistake is no set, and what was asked for before stays asked for. Must not know the
kernel.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cgnetd.datapath.cache import BlobCache
from cgnetd.datapath.compile import Image, compile_image
from cgnetd.errors import PolicyError, Problem
from cgnetd.policy.known import Known, digest_of
from cgnetd.policy.load import ParseResult, Source, parse
from cgnetd.policy.types import Action, PolicySet
from cgnetd.service.files import BeingWritten, FileContent, Stamp, read_whole, stamp, still_holds
from cgnetd.service.fingerprint import Fingerprints, KnownFingerprints
from cgnetd.service.policy_files import Reading, list_policies, read_policies
from cgnetd.service.unit_files import alias_doubts

_USERS = "/etc/passwd"  # `users:` are looked up there
_SETTLED_NS = 50_000_000  # a file that changed later than this before it was read can do so again with the same stamp


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
    content: object = None  # equal where all that was read is
    files: dict[str, FileContent] = field(default_factory=dict)  # policy files
    digests: dict[str, bytes] = field(default_factory=dict)  # of set files

    def hold(self, now: Mapping[str, Stamp]) -> bool:
        """Whether these are the paths, and nothing about them changed."""
        return now == self.stamps and all(map(self._is_settled, now.values()))

    def holds(self, found: Stamp | None) -> bool:
        """Whether nothing about the path of this stamp changed."""
        if found is None or found.inode == 0:
            return False
        return found == self.stamps.get(found.path) and self._is_settled(found)

    def kept(self, path: str, now: Mapping[str, Stamp], *, closely: bool) -> FileContent | None:
        """A policy file that is as it was. `closely`: what it holds is compared, whatever its stamp says."""
        content = self.files.get(path)
        if content is None or now.get(path) != content.stamp:
            return None
        return content if (still_holds(content) if closely else self._is_settled(content.stamp)) else None

    def _is_settled(self, found: Stamp) -> bool:
        # Both times: whoever copies a file gives it the time of the first one, and the change the time of now.
        return max(found.mtime_ns, found.ctime_ns) <= self.read_ns - _SETTLED_NS


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
        self._known = Known()
        self._fingerprints = KnownFingerprints()
        self._inputs = _Inputs()
        self._users: dict[str, int | None] = {}
        self.asked = Asked()

    def look(self, *, force: bool = False) -> Asked:
        """What is asked for now. `force`: read even if no file seems to have changed, and look users up again.

        What was read is parsed only if it differs from what was parsed last. Never raises.
        """
        read_ns = time.time_ns()
        listing = list_policies(self.directories)
        now = {path: stamp(path) for path in self._paths(listing.paths)}
        before = self._inputs
        if not force and not self.asked.writing and before.stamps and before.hold(now):
            return self.asked
        reading = read_policies(listing, lambda path: before.kept(path, now, closely=force))
        sets = self._set_files({} if force else now)
        moved = force and any(_uid(name) != uid for name, uid in self._users.items())
        if moved or _content(reading, sets, now[_USERS]) != before.content or self.asked.writing:
            self.asked = self._load(reading, sets)
        self._inputs = _Inputs(
            self._stamps(reading, sets, now),
            read_ns,
            _content(reading, sets, now[_USERS]),
            {content.path: content for content in reading.files},
            sets.digests,
        )
        return self.asked

    def _set_files(self, now: Mapping[str, Stamp]) -> _SetFiles:
        """Those that are likely to be asked for, as far as they may have changed. `now`: their stamps."""
        sets = _SetFiles()
        for path in self.asked.set_files:
            found, digest = now.get(path), self._inputs.digests.get(path)
            if found is not None and digest is not None and self._inputs.holds(found):
                sets.keep(found, digest)
            else:
                sets.preload(path)
        return sets

    def paths(self) -> tuple[str, ...]:
        """Every file that mattered at the last look."""
        return tuple(self._inputs.stamps)

    def _paths(self, policies: Sequence[str]) -> tuple[str, ...]:
        """Every path that matters; missing ones too, for they may come."""
        return (*policies, *self.asked.set_files, _USERS)

    def _stamps(self, reading: Reading, sets: _SetFiles, before: Mapping[str, Stamp]) -> dict[str, Stamp]:
        """Stamps of what was read, from the reading itself: the file may be another one by now. Those of what was not
        read are of `before` the reading, or of nothing: what came meanwhile has another one."""
        read = {content.path: content.stamp for content in reading.files} | sets.stamps
        return {path: read.get(path) or before.get(path) or Stamp(path) for path in self._paths(reading.paths)}

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
            prints = self._fingerprints.of(parsed.policy_set)
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
            known=self._known,
            unchanged=sets.digests,
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
    """Set files of one look, each read once, if at all."""

    def __init__(self) -> None:
        self.stamps: dict[str, Stamp] = {}
        self.digests: dict[str, bytes] = {}
        self.writing: list[str] = []
        self._data: dict[str, bytes] = {}
        self._failed: dict[str, OSError] = {}

    def keep(self, known: Stamp, digest: bytes) -> None:
        """A file that is as it was."""
        self.stamps[known.path] = known
        self.digests[known.path] = digest

    def preload(self, path: str) -> None:
        """Read a file that is likely to be asked for; a failure is told when it is."""
        try:
            content = read_whole(path)
        except OSError as error:
            self._failed[path] = error
            if isinstance(error, BeingWritten):
                self.writing.append(path)
            return
        self._data[path], self.stamps[path] = content.data, content.stamp
        self.digests[path] = digest_of(content.data)

    def read(self, path: str) -> bytes:
        """The content. Raises OSError."""
        if path not in self._data and path not in self._failed:
            self.preload(path)
        if path in self._failed:
            raise self._failed[path]
        return self._data[path]

    def failures(self) -> tuple[str, ...]:
        return tuple(f"{path}: {error}" for path, error in sorted(self._failed.items()))


def _content(reading: Reading, sets: _SetFiles, users: Stamp) -> object:
    """Everything that was read, to skip parsing what only has a new time stamp."""
    files = tuple((content.path, content.data) for content in reading.files)
    problems = tuple(str(problem) for problem in reading.problems)
    return users, problems, files, sets.digests, sets.failures()
