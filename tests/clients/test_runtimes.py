# SPDX-License-Identifier: Apache-2.0
"""Language runtimes: what their sockets name as peer and as sender of an answer is the address asked for.

Java asks for IPv4 addresses by IPv6 sockets, as IPv4-mapped ones.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from pathlib import Path

import pytest

from clients.pages import facts
from clients.policies import DNS, FAMILIES, V4, V6, WEB, Family
from clients.stage import Stage, program

PROGRAMS = Path(__file__).parent / "programs"
TCP = {"tcp": WEB.asked}
UDP = {"udp": DNS.asked, "udp connected": DNS.asked}


def said(text: str) -> dict[str, list[object]]:
    """What comes before the page: a list a line, by its first word. Addresses in their usual spelling."""
    lists = [json.loads(line) for line in text.splitlines() if line.startswith("[")]
    return {first: [str(ipaddress.ip_address(address)), port] for first, address, port in lists}


def check(text: str, family: Family, expected: dict[str, int]) -> None:
    assert said(text) == {what: [family.asked, port] for what, port in expected.items()}
    assert facts(text).local == (family.actual, WEB.actual)


@pytest.mark.parametrize("family", FAMILIES)
def test_python_sees_the_addresses_it_asked_for(stage: Stage, family: Family) -> None:
    text = stage.run([sys.executable, str(PROGRAMS / "client.py"), str(WEB.asked), str(DNS.asked), family.asked])
    mine = {"asyncio tcp": WEB.asked, "asyncio udp": DNS.asked, "asyncio udp connected": DNS.asked}
    check(text, family, TCP | UDP | {"udp peer": DNS.asked} | mine)


@pytest.mark.parametrize("family", FAMILIES)
def test_node_sees_the_addresses_it_asked_for(stage: Stage, family: Family) -> None:
    node = program("nodejs", "node", "nodejs")
    text = stage.run([node, str(PROGRAMS / "client.js"), str(WEB.asked), str(DNS.asked), family.asked])
    resolved = json.dumps(["resolved", V4.asked, V6.asked], separators=(",", ":")) + "\n"
    assert resolved in text
    check(text.replace(resolved, ""), family, TCP | UDP | {"udp peer": DNS.asked})


@pytest.mark.parametrize("family", FAMILIES)
def test_java_sees_the_addresses_it_asked_for(stage: Stage, family: Family) -> None:
    java = [program("default-jre-headless", "java"), "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    text = stage.run([*java, str(PROGRAMS / "Client.java"), str(WEB.asked), str(DNS.asked), family.asked])
    check(text, family, TCP | UDP | {"udp channel": DNS.asked})
