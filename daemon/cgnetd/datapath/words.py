# SPDX-License-Identifier: Apache-2.0
"""What a rule does to a call, in words for people: where it leads, from where, and what it sets.

Must not know of cells.
"""

from __future__ import annotations

from collections.abc import Iterator

from cgnetd.datapath.record import address_text
from cgnetd.policy.types import Endpoint, LocalAddresses, Redirect, Rewrite, Rule, SocketOptions


def leads_to(rule: Rule) -> str:
    """ "127.0.0.1:8080, [::1]:8080", "service:db", "@name", "source 10.0.0.7", "privileged", "mark 0x10"...; "" for a
    rule that changes nothing. Several parts are separated by ", "."""
    if not _changes_calls(rule):
        return ""
    return ", ".join(_parts(rule))


def _changes_calls(rule: Rule) -> bool:
    """Whether the rule does more to a call than to let it pass or not."""
    return (
        rule.redirect is not None
        or rule.source is not None
        or rule.rewrite is not None
        or rule.privileged
        or rule.options is not None
    )


def name_text(name: bytes) -> str:
    r"""The name of a UNIX socket: an abstract one begins with "@"; bytes that do not print are "\xNN"."""
    text = name.removeprefix(b"\0").decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in text)
    return f"@{shown}" if name.startswith(b"\0") else shown


def _parts(rule: Rule) -> Iterator[str]:
    if rule.redirect is not None:
        yield from _targets(rule.redirect)
    if rule.rewrite is not None:
        yield from _new_addresses(rule.rewrite)
    if rule.source is not None:
        yield from (f"source {text}" for text in _texts(rule.source))
    if rule.privileged:
        yield "privileged"
    if rule.options is not None:
        yield from _options(rule.options)


def _targets(redirect: Redirect) -> Iterator[str]:
    if redirect.name is not None:
        yield name_text(redirect.name)
    elif redirect.service is not None:
        yield f"service:{redirect.service.name}"
    else:
        yield from (_endpoint(target) for target in (redirect.v4, redirect.v6) if target is not None)


def _new_addresses(rewrite: Rewrite) -> Iterator[str]:
    port = rewrite.port or 0
    found = [(4, rewrite.addresses.v4), (6, rewrite.addresses.v6)]
    endpoints = [Endpoint(family, address, port) for family, address in found if address is not None]
    yield from map(_endpoint, endpoints)
    if not endpoints:
        yield f"port {port}"


def _endpoint(endpoint: Endpoint) -> str:
    """ "192.0.2.1:80", "[2001:db8::1]:80"; the address alone where the port is kept."""
    text = address_text(endpoint.family, endpoint.address)
    if not endpoint.port:
        return text
    return f"{text}:{endpoint.port}" if endpoint.family == 4 else f"[{text}]:{endpoint.port}"


def _texts(addresses: LocalAddresses) -> Iterator[str]:
    for family in (4, 6):
        address = addresses.of(family)
        if address is not None:
            yield address_text(family, address)


def _options(options: SocketOptions) -> Iterator[str]:
    if options.mark is not None:
        yield f"mark {options.mark:#x}"
    if options.priority is not None:
        yield f"priority {options.priority}"
    if options.device is not None:
        yield f"device {options.device}"
