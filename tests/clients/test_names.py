# SPDX-License-Identifier: Apache-2.0
"""Name resolution through redirects, by clients that connect their sockets and by TCP.

That unconnected sockets see answers come from where they asked is shown by the runtimes.
"""

from __future__ import annotations

import pytest

from clients.policies import DNS, FAMILIES, V4, V6, Family
from clients.stage import Stage, program


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dig_takes_the_answer(stage: Stage, family: Family, transport: str) -> None:
    """Its sockets are connected: the kernel drops what comes from anywhere but the address connected to."""
    dig = program("bind9-dnsutils", "dig")
    text = stage.run([dig, f"@{family.asked}", "+tries=1", "+time=5", transport, "web.test", "A", "web.test", "AAAA"])
    answers = [line.split()[-1] for line in text.splitlines() if line.startswith("web.test.")]
    assert answers == [V4.asked, V6.asked]
    kind = "TCP" if transport == "+tcp" else "UDP"
    assert text.count(f";; SERVER: {family.asked}#{DNS.asked}({family.asked}) ({kind})") == 2


def test_getaddrinfo_takes_the_answer(stage: Stage) -> None:
    text = stage.run([program("libc-bin", "getent"), "ahosts", "web.test"])
    assert {line.split()[0] for line in text.splitlines()} == {V4.asked, V6.asked}
