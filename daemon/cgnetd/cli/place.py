# SPDX-License-Identifier: Apache-2.0
"""Places of calls in an answer, as people write them. Pure; must not know what happens there."""

from __future__ import annotations

import ipaddress

from cgnetd.service.words import endpoint_text


def place(address: str | None, port: int | None = None, name: str | None = None) -> str:
    """`192.0.2.1:443`, `[2001:db8::1]:443`, or the name of a UNIX socket; "" for none of them.

    An IPv4-mapped IPv6 address is the IPv4 address.
    """
    if not address:
        return name or ""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if address.startswith("::ffff:") else None
    return endpoint_text(str(mapped or address), port or 0)
