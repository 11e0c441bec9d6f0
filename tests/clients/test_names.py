# SPDX-License-Identifier: Apache-2.0
"""Name resolution through redirects: clients that take an answer only from the address they asked."""

from __future__ import annotations

import pytest

from clients.policies import DNS, FAMILIES, V4, V6, Family
from clients.stage import Stage, program


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dig_takes_the_answer(stage: Stage, family: Family, transport: str) -> None:
    """It compares the source of a datagram with the server it asked, and says so when they differ."""
    dig = program("bind9-dnsutils", "dig")
    text = stage.run([dig, f"@{family.asked}", "+tries=1", "+time=5", transport, "web.test", "A", "web.test", "AAAA"])
    answers = [line.split()[-1] for line in text.splitlines() if line.startswith("web.test.")]
    assert answers == [V4.asked, V6.asked]
    kind = "TCP" if transport == "+tcp" else "UDP"
    assert text.count(f";; SERVER: {family.asked}#{DNS.asked}({family.asked}) ({kind})") == 2
    assert "unexpected source" not in text


def test_getaddrinfo_takes_the_answer(stage: Stage) -> None:
    text = stage.run([program("libc-bin", "getent"), "ahosts", "web.test"])
    assert {line.split()[0] for line in text.splitlines()} == {V4.asked, V6.asked}
