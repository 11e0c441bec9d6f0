# SPDX-License-Identifier: Apache-2.0
"""Where records go: the journal or JSON lines on stdout, and the daemon's memory of the last ones.

Must not know how records are made.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from cgnetd.service import journal
from cgnetd.service.events import Message, Record
from cgnetd.service.stream import TextStream

REMEMBERED = 1000
_BEHIND_BYTES = 512 * 1024


class Sink(Protocol):
    """Takes batches of records. Must neither raise nor block for long. What its reader does not take now it keeps for
    `flush`, as far as there is room; `dropped` counts what it will never tell."""

    dropped: int

    @property
    def kept(self) -> int: ...

    @property
    def behind(self) -> bool: ...

    def write(self, records: Sequence[Record]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def open_sink(name: str) -> Sink:
    """The sink named "journal" or "stdout"; "auto" is the journal where one runs."""
    if name == "journal" or (name == "auto" and os.path.exists(journal.SOCKET_PATH)):
        return journal.JournalSink()
    return JsonSink(sys.stdout.fileno(), sys.stderr.fileno(), priorities="JOURNAL_STREAM" in os.environ)


class JsonSink:
    """JSON lines on one descriptor; the daemon's own messages on another as lines for people as well."""

    def __init__(self, out_fd: int, log_fd: int, *, priorities: bool) -> None:
        """`priorities`: prefix lines for people with "<N>", as journald reads them from a service's stderr."""
        self._out = TextStream(out_fd)
        self._log = TextStream(log_fd)
        self._priorities = priorities
        self.dropped = 0

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            if not self._out.write(json.dumps(record.to_json()) + "\n"):
                self.dropped += 1
            if isinstance(record, Message):
                self._log.write(self._line(record))

    def flush(self) -> None:
        self._out.flush()
        self._log.flush()

    @property
    def kept(self) -> int:
        """Bytes that wait for their readers."""
        return self._out.pending + self._log.pending

    @property
    def behind(self) -> bool:
        """Whether so many wait that fewer should come."""
        return self._out.pending > _BEHIND_BYTES

    def close(self) -> None:
        """The streams are not ours to close."""

    def _line(self, message: Message) -> str:
        prefix = f"<{int(message.kind.priority)}>" if self._priorities else ""
        return f"{prefix}cgnetd: {message.text}\n"


class EventLog:
    """The last records, and those who follow new ones."""

    def __init__(self, sink: Sink, remembered: int = REMEMBERED) -> None:
        self._sink = sink
        self._recent: deque[Record] = deque(maxlen=remembered)
        self._followers: list[Callable[[Sequence[Record]], None]] = []

    @property
    def dropped(self) -> int:
        """Records that the sink will never tell."""
        return self._sink.dropped

    @property
    def kept(self) -> bool:
        """Whether the sink's reader has not taken everything yet: flush again later."""
        return self._sink.kept > 0

    @property
    def behind(self) -> bool:
        """Whether fewer events should come, for the sink's reader does not take them."""
        return self._sink.behind

    def publish(self, records: Sequence[Record]) -> None:
        if not records:
            return
        self._recent.extend(records)
        self._sink.write(records)
        for follower in tuple(self._followers):
            follower(records)

    def recent(self, count: int = REMEMBERED) -> tuple[Record, ...]:
        """The last `count` records, oldest first."""
        return tuple(self._recent)[-count:] if count > 0 else ()

    def follow(self, follower: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        """Call `follower` with each new batch; the answer ends that and may be called twice."""
        self._followers.append(follower)

        def unfollow() -> None:
            if follower in self._followers:
                self._followers.remove(follower)

        return unfollow

    def flush(self) -> None:
        """Try again what the sink's reader was too slow to take."""
        self._sink.flush()

    def close(self) -> None:
        self._sink.close()
