# SPDX-License-Identifier: Apache-2.0
"""Running a client in a cgroup, and reading from what it prints how its call ended.

Must not know what is expected.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

from calls import Call

TIMEOUT_S = 60
NUMBERS = (
    errno.EPERM,
    errno.EACCES,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.EADDRINUSE,
)
# The shell enters the cgroup itself, so that the client is there from its first instruction.
ENTER = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'


def run(call: Call, cgroup: Path | None) -> str:
    """Run the client of `call` in `cgroup` (None: in ours). "ok", the name of an errno, or the last line it printed."""
    words = call.command if cgroup is None else ("sh", "-c", ENTER, "sh", str(cgroup), *call.command)
    try:
        ended = subprocess.run(
            words,
            input="hello\n",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return "no answer"
    text = ended.stdout + ended.stderr
    if ended.returncode == 0 and call.answer in ended.stdout:
        return "ok"
    return _errno(text) or (text.strip().splitlines() or [f"exit {ended.returncode}"])[-1]


def _errno(text: str) -> str:
    """The errno whose text the client printed. dig has words of its own, without "is" and in small letters."""
    plain = re.sub(r"\bis ", "", text.lower())
    for number in NUMBERS:
        if re.sub(r"\bis ", "", os.strerror(number).lower()) in plain:
            return errno.errorcode[number]
    return "EHOSTUNREACH" if "host unreachable" in plain else ""
