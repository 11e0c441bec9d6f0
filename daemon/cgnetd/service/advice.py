# SPDX-License-Identifier: Apache-2.0
"""What somebody who reads of a call may want to do next, as a command line. Pure. Must not know who reads it."""

from __future__ import annotations

import shlex

from cgnetd.service.events import FlowEvent
from cgnetd.service.words import endpoint_text

_PROTOCOLS = ("tcp", "udp", "udplite", "sctp", "icmp")
_KINDS = ("stream", "dgram", "raw")
_FAMILIES = {4: "inet", 6: "inet6"}


def explain_command(event: FlowEvent) -> str:
    """The `cgnetctl explain` that asks about the call, for a shell; words in capitals stand for what is not known."""
    words = [event.cgroup or "SUBJECT", event.hook, *_what(event)]
    return shlex.join(["cgnetctl", "explain", *words])


def _what(event: FlowEvent) -> list[str]:
    """Protocol and place, or the kind of a new socket."""
    if event.hook == "create":
        kind = event.socket_type if event.socket_type in _KINDS else "other"
        return [f"{_FAMILIES.get(event.family, 'inet')}/{kind}"]
    if event.hook == "socket":
        return [event.protocol if event.protocol in _PROTOCOLS else "raw"]
    if event.protocol == "unix":
        return ["unix", event.name if event.name and "\\" not in event.name else "NAME"]
    protocol = event.protocol if event.protocol in _PROTOCOLS else "PROTO"
    address, port = (
        (event.local_address, event.local_port) if event.is_bind else (event.remote_address, event.remote_port)
    )
    return [protocol, endpoint_text(address, port) if address else "ADDRESS:PORT"]
