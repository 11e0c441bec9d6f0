# SPDX-License-Identifier: Apache-2.0
"""What a failed libbpf call raises. Must not know of ctypes or of who calls."""

from __future__ import annotations

import os


class BpfError(OSError):
    """A libbpf call that failed: `errno` as always, `call` the C function, `log` what libbpf and the verifier said."""

    def __init__(self, number: int, call: str, log: str = "") -> None:
        reason = os.strerror(number) if 0 < number < 512 else f"kernel error {number}"
        super().__init__(number, f"{call}: {reason}")
        self.call = call
        self.log = log

    def __str__(self) -> str:
        text = str(self.strerror)
        return f"{text}\n{self.log}" if self.log else text
