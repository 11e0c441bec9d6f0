# SPDX-License-Identifier: Apache-2.0
"""What the web server's page says of the connection it came by. Must not know who fetched it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """Seen from the server: its own address and port, the client's, the path and the Host header of the request."""

    local: tuple[str, int]
    peer: tuple[str, int]
    path: str
    host: str


def facts(text: str) -> Facts:
    """From the only page in `text`."""
    (body,) = re.findall(r"<body>(.*?)</body>", text, re.DOTALL)
    found = json.loads(body)
    return Facts(tuple(found["local"]), tuple(found["peer"]), found["path"], found["host"])
