# SPDX-License-Identifier: Apache-2.0
"""Turns a refused system call into the error that says how to mend it. Must not know what was being done."""

from __future__ import annotations

import errno
from pathlib import Path

from cgnetd.errors import CgnetdError, KernelError, PrivilegeError
from pybpf import BpfError

_CAPABILITIES = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_ADMINISTRATORS = {"CAP_BPF", "CAP_PERFMON"}  # the kernel takes CAP_SYS_ADMIN for each (linux/capability.h)
NEEDED = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN")
_LOG_LINES = 12


def missing_capabilities(needed: tuple[str, ...] = NEEDED) -> tuple[str, ...]:
    """Those of `needed` that this process does not have in effect, nor CAP_SYS_ADMIN in their place."""
    status = Path("/proc/self/status").read_bytes()
    line = next((line for line in status.splitlines() if line.startswith(b"CapEff:")), b"CapEff: 0")
    effective = int(line.split()[1], 16)
    found = {name for name, bit in _CAPABILITIES.items() if effective >> bit & 1}
    if "CAP_SYS_ADMIN" in found:
        found |= _ADMINISTRATORS
    return tuple(name for name in needed if name not in found)


SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # of what the asking itself needs


def kernel_error(action: str, error: OSError) -> CgnetdError:
    """The error to raise for `error`, which came of `action` ("load program connect4")."""
    if error.errno == errno.EPERM:
        missing = missing_capabilities()
        need = f"run as root, or with {', '.join(missing)}" if missing else "the kernel or a security module forbids it"
        return PrivilegeError(f"{action}: {_first_line(error)}: {need}")
    log = error.log if isinstance(error, BpfError) else ""
    tail = "\n".join(log.splitlines()[-_LOG_LINES:])
    return KernelError(f"{action}: {_first_line(error)}" + (f"\n{tail}" if tail else ""))


def _first_line(error: OSError) -> str:
    return (error.strerror or str(error)).splitlines()[0]
