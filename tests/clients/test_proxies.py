# SPDX-License-Identifier: Apache-2.0
"""Proxies written for iptables REDIRECT, unmodified: SO_ORIGINAL_DST tells them where a connection was going.

The origins exist, and the proxy's own connection to one goes there and not back to the proxy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from clients import proxies
from clients.pages import facts
from clients.policies import DETOURS, WEB, Detour
from clients.stage import Stage, program
from support.sandbox import PrivateCgroup

START: dict[str, Callable[[Stage, PrivateCgroup], AbstractContextManager[None]]] = {
    "haproxy": proxies.haproxy,
    "squid": proxies.squid,
    "redsocks": proxies.redsocks,
}
_paths = (f"/by-proxy-{number}" for number in itertools.count())


@pytest.fixture(scope="module", params=["ungoverned", "governed"])
def place(stage: Stage, request: pytest.FixtureRequest) -> PrivateCgroup:
    """Where proxies run: in no policy's cgroup, or in one whose policy allows everything."""
    return stage.proxy if request.param == "governed" else stage.servers


@pytest.fixture(scope="module", params=DETOURS)
def detour(stage: Stage, place: PrivateCgroup, request: pytest.FixtureRequest) -> Iterator[Detour]:
    """A proxy that runs."""
    with START[request.param.name](stage, place):
        yield request.param


def test_proxy_goes_to_the_original_destination(stage: Stage, detour: Detour) -> None:
    for origin, source in zip(detour.origins, detour.leaves_from, strict=True):
        path, host = next(_paths), f"[{origin}]" if ":" in origin else origin
        form = "%{remote_ip} %{remote_port}\n"
        text = stage.run([program("curl", "curl"), "-sS", "-m", "10", "-w", form, f"http://{host}{path}"])
        found = facts(text)
        assert (found.local, found.peer[0], found.path) == ((origin, WEB.asked), source, path)
        assert f"\n{origin} {WEB.asked}\n" in text


def test_many_connections_each_go_to_their_own_destination(stage: Stage, detour: Detour) -> None:
    """At once, so that their handshakes overlap."""
    hosts = [f"[{origin}]" if ":" in origin else origin for origin in detour.origins]
    urls = [f"http://{host}{next(_paths)}" for _ in range(20) for host in hosts]
    curl = [program("curl", "curl"), "-sS", "-m", "20", "--no-keepalive", "--parallel", "--parallel-max", "20"]
    pages = stage.run([*curl, "-H", "Connection: close", *urls]).split("</html>")
    seen = sorted((found.local[0], found.path) for found in map(facts, pages[:-1]))
    assert seen == sorted((url.split("/")[2].strip("[]"), "/" + url.split("/")[3]) for url in urls)
