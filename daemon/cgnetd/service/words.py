# SPDX-License-Identifier: Apache-2.0
"""Errnos and endpoints as text, the same wherever the daemon writes them.

Pure. Must not know what the text is for.
"""

from __future__ import annotations

import errno

from cgnetd.datapath.words import name_text


def errno_name(number: int) -> str:
    """ "EPERM"; the number if it has no name; "" for 0."""
    return errno.errorcode.get(number, str(number)) if number else ""


def endpoint_text(address: str, port: int) -> str:
    """ "192.0.2.1:80", "[2001:db8::1]:80"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def unix_name(name: bytes) -> str:
    r"""The name of a UNIX socket: an abstract one begins with "@"; bytes that do not print are "\xNN"."""
    return name_text(name)
