# SPDX-License-Identifier: Apache-2.0
"""What to watch, which events are worth a pass, and when the dust has settled.

An event only says "look again": nothing here is believed about the content of a file, and whatever is missed is found
by the next regular pass. Must not know what a pass does.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cgnetd.service import inotify
from cgnetd.service.inotify import Inotify, InotifyEvent

QUIET_S = 0.1  # an editor's save is several events; it is over when none came for this long
LONGEST_S = 1.0  # a directory that never comes to rest is read nevertheless

_MASK = (
    inotify.MODIFY
    | inotify.ATTRIB
    | inotify.CLOSE_WRITE
    | inotify.MOVED_FROM
    | inotify.MOVED_TO
    | inotify.CREATE
    | inotify.DELETE
    | inotify.DELETE_SELF
    | inotify.MOVE_SELF
    | inotify.ONLYDIR
)


class Change(enum.IntEnum):
    """What a batch of events amounts to; the greatest counts."""

    NONE = 0
    STIRRING = 1  # a file is being written: wait on, but it alone is no reason to look
    LOOK = 2  # something is complete, gone or in place


@dataclass(slots=True)
class Debounce:
    """When to look, given the times of events. Times are seconds of one monotonic clock."""

    quiet_s: float = QUIET_S
    longest_s: float = LONGEST_S
    deadline: float | None = None  # look at this time; None: nothing to look at
    _first: float = 0.0

    def note(self, change: Change, now: float) -> None:
        if change is Change.NONE or (change is Change.STIRRING and self.deadline is None):
            return
        if self.deadline is None:
            self._first = now
        self.deadline = min(now + self.quiet_s, self._first + self.longest_s)

    def clear(self) -> None:
        self.deadline = None


@dataclass(slots=True)
class _Interest:
    """Which names of a watched directory matter."""

    path: str
    suffixes: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    everything: bool = False

    def covers(self, name: str) -> bool:
        if self.everything or not name or name in self.names:
            return True
        return not name.startswith(".") and any(name.endswith(suffix) for suffix in self.suffixes)


class Watch:
    """Watches on directories of policies, on set files and on the tree of pins."""

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._interests: dict[int, _Interest] = {}

    @property
    def fd(self) -> int:
        return self._inotify.fd

    def follow(self, *, directories: Iterable[str], files: Iterable[str], trees: Iterable[str]) -> None:
        """Watch exactly these from now on.

        A directory (or a file's directory) that does not exist is waited for at its nearest existing parent. Call it
        again after each pass: that is when paths have come and gone. Never raises: what cannot be watched is found by
        the regular pass.
        """
        wanted: dict[int, _Interest] = {}
        for directory in directories:
            self._want(wanted, directory, suffixes={".yaml", ".yml"})
        for path in files:
            for name in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
                self._want(wanted, os.path.dirname(name), names={os.path.basename(name)})
        for tree in trees:
            for directory in _subdirectories(tree):
                self._want(wanted, directory, everything=True)
        for stale in self._interests.keys() - wanted.keys():
            self._inotify.remove(stale)
        self._interests = wanted

    def read(self) -> Change:
        """What the waiting events amount to."""
        return max((self._weigh(event) for event in self._inotify.read()), default=Change.NONE)

    def close(self) -> None:
        self._inotify.close()

    def _want(
        self,
        wanted: dict[int, _Interest],
        directory: str,
        *,
        suffixes: set[str] | None = None,
        names: set[str] | None = None,
        everything: bool = False,
    ) -> None:
        for path, awaited in _way_down(directory):
            try:
                watch = self._inotify.add(path, _MASK)
            except OSError:
                continue
            interest = wanted.setdefault(watch, _Interest(path))
            if awaited:
                interest.names.add(awaited)
            else:
                interest.suffixes |= suffixes or set()
                interest.names |= names or set()
                interest.everything |= everything

    def _weigh(self, event: InotifyEvent) -> Change:
        if event.mask & inotify.Q_OVERFLOW:
            return Change.LOOK
        interest = self._interests.get(event.watch)
        if interest is None or event.mask & inotify.IGNORED or not interest.covers(event.name):
            return Change.NONE
        if event.mask & inotify.MODIFY:
            return Change.STIRRING
        if event.mask & inotify.CREATE and not event.mask & inotify.ISDIR:
            return _created(os.path.join(interest.path, event.name))
        return Change.LOOK


def _created(path: str) -> Change:
    """A plain new file is complete when its writer closes it; a link is complete at once."""
    try:
        status = os.lstat(path)
    except OSError:
        return Change.LOOK
    writing = os.path.isfile(path) and not os.path.islink(path) and status.st_nlink == 1
    return Change.STIRRING if writing else Change.LOOK


def _way_down(directory: str) -> Iterator[tuple[str, str]]:
    """The nearest existing parent and the name awaited in it ("" for itself); again if that came meanwhile."""
    path = os.path.abspath(directory)
    awaited: list[str] = []
    while not os.path.isdir(path) and path != "/":
        path, name = os.path.split(path)
        awaited.append(name)
    yield path, awaited.pop() if awaited else ""
    # The consumer has set the watch by now: what was made between the look and the watch would not be seen otherwise.
    if path != os.path.abspath(directory) and os.path.isdir(os.path.join(path, _next_name(path, directory))):
        yield from _way_down(directory)


def _next_name(path: str, directory: str) -> str:
    return os.path.relpath(os.path.abspath(directory), path).split(os.sep, 1)[0]


def _subdirectories(tree: str) -> Iterator[str]:
    yield tree
    for path, names, _files in os.walk(tree):
        for name in names:
            yield os.path.join(path, name)
