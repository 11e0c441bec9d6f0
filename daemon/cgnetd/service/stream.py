# SPDX-License-Identifier: Apache-2.0
"""Writing text to a descriptor whose reader may be slow, stopped or gone.

The descriptor may be shared with other programs (a terminal), so it is not made non-blocking: a write that poll(2)
allows and that is no longer than a pipe's atomic unit does not block. Must not know what is written.
"""

from __future__ import annotations

import os
import select
import time

_CHUNK_BYTES = select.PIPE_BUF
_PENDING_BYTES = 1024 * 1024
_PATIENCE_S = 0.2


class TextStream:
    """A descriptor to write to, with what its reader has not taken yet."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = bytearray()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, text: str) -> bool:
        """Write, or keep for later; False if it was neither, because the reader is gone or far behind."""
        data = text.encode("utf-8", "backslashreplace")
        # A reader that was behind already gets no patience again: many writes would add up to a long wait.
        patience_s = 0.0 if self._pending else _PATIENCE_S
        if len(self._pending) + len(data) > _PENDING_BYTES:
            self._drain(patience_s)
            return False
        self._pending += data
        return self._drain(patience_s)

    def flush(self) -> bool:
        """Write what waits, as far as it goes without blocking. False if the reader is gone."""
        return self._drain(0.0)

    @property
    def pending(self) -> int:
        """Bytes that the reader has not taken yet."""
        return len(self._pending)

    def _drain(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self._pending:
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return True
            try:
                written = os.write(self._fd, self._pending[:_CHUNK_BYTES])
            except OSError:
                self._pending.clear()
                return False
            del self._pending[:written]
        return True
