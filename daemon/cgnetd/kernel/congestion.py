# SPDX-License-Identifier: Apache-2.0
"""Which congestion controls TCP connections can be given. Must not know who asks for which."""

from __future__ import annotations

import errno
import socket

from cgnetd.kernel.failure import kernel_error

_NAME_BYTES = 15  # TCP_CA_NAME_MAX with its NUL is 16


def available(name: str) -> bool:
    """Whether the kernel has it, loading its module if there is one. KernelError if that cannot be found out.

    A module is loaded at this by setsockopt(2) with CAP_NET_ADMIN only; programs in the kernel cannot have it loaded.
    """
    word = name.encode()
    if not 0 < len(word) <= _NAME_BYTES or b"\0" in word:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, word)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise kernel_error(f"look for congestion control {name}", error) from error
    return True
