# SPDX-License-Identifier: Apache-2.0
"""Errnos, endpoints and names of UNIX sockets as text, the same wherever cgnetd writes them.

Pure. Must not know what the text is for.
"""

from __future__ import annotations

import errno


def errno_name(number: int) -> str:
    """ "EPERM"; the number if it has no name; "" for 0."""
    return errno.errorcode.get(number, str(number)) if number else ""


def endpoint_text(address: str, port: int) -> str:
    """ "192.0.2.1:80", "[2001:db8::1]:80"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def unix_name(name: bytes) -> str:
    r"""The name of a UNIX socket for people: an abstract one begins with "@"; bytes that do not print are "\xNN"."""
    abstract, rest = name[:1] == b"\0", name.removeprefix(b"\0")
    text = "".join(_printable(character) for character in rest.decode("utf-8", "backslashreplace"))
    return f"@{text}" if abstract else text


def _printable(character: str) -> str:
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in character.encode())
