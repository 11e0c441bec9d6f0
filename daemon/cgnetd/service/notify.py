# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager how we are (sd_notify). Does nothing where none started us.

Must not know what the daemon does.
"""

from __future__ import annotations

import os
import time

from systemd import daemon


class Notifier:
    """Speaks to the service manager that started this process, if there is one."""

    def __init__(self) -> None:
        self.watchdog_s = _watchdog_s()  # we must be heard within this time; None: no watchdog
        self._status = ""

    def ready(self, status: str) -> None:
        """`status`: one printable line, here and below."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping, enforcement stays on")

    def status(self, status: str) -> None:
        """Tells what is new only."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    @property
    def is_heard(self) -> bool:
        """Whether a service manager started this process, and listens."""
        return "NOTIFY_SOCKET" in os.environ

    def alive(self) -> None:
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    @staticmethod
    def _send(*lines: str) -> None:
        if "NOTIFY_SOCKET" not in os.environ:
            return
        try:
            daemon.notify("\n".join(lines))
        except OSError:
            return  # a service manager that does not listen must not harm enforcement


def _watchdog_s() -> float | None:
    """WATCHDOG_USEC, if it is meant for this process."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdecimal() or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 1e6
