# SPDX-License-Identifier: Apache-2.0
"""HTTP clients: they get the page of the server behind the redirect, and see the address they asked for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from clients.pages import facts
from clients.policies import FAMILIES, V4, V6, WEB, Family
from clients.stage import Stage, program

_paths = (f"/page-{number}" for number in itertools.count())


@pytest.fixture
def path() -> str:
    """Of a page that nobody asked for before."""
    return next(_paths)


@pytest.mark.parametrize("options", [(), ("--tcp-fastopen",)], ids=["plain", "fast-open"])
@pytest.mark.parametrize("family", FAMILIES)
def test_curl_sees_the_address_it_asked_for(stage: Stage, path: str, family: Family, options: tuple[str, ...]) -> None:
    curl = program("curl", "curl")
    form = "%{remote_ip} %{remote_port} %{local_ip}\n"
    text = stage.run([curl, "-sS", "-m", "10", *options, "-w", form, f"http://{family.in_url}{path}"])
    found = facts(text)
    assert (found.local, found.path, found.host) == ((family.actual, WEB.actual), path, family.in_url)
    assert f"{family.asked} {WEB.asked} {found.peer[0]}\n" in text


def test_curl_sees_the_mapped_address_it_asked_for(stage: Stage, path: str) -> None:
    """An IPv6 socket, and IPv4 on the wire."""
    form = "%{remote_ip} %{remote_port}\n"
    text = stage.run([program("curl", "curl"), "-sS", "-m", "10", "-w", form, f"http://[::ffff:{V4.asked}]{path}"])
    assert facts(text).local == (V4.actual, WEB.actual)
    assert f"\n::ffff:{V4.asked} {WEB.asked}\n" in text


@pytest.mark.parametrize(("name", "family"), [("v4.web.test", V4), ("v6.web.test", V6)])
def test_curl_gets_a_page_by_a_name_from_a_redirected_server(
    stage: Stage, path: str, name: str, family: Family
) -> None:
    text = stage.run([program("curl", "curl"), "-sS", "-m", "10", "-w", "%{remote_ip}\n", f"http://{name}{path}"])
    assert (facts(text).local, facts(text).host) == ((family.actual, WEB.actual), name)
    assert f"\n{family.asked}\n" in text


@pytest.mark.parametrize("host", [V4.in_url, V6.in_url, "v4.web.test", "v6.web.test"])
def test_go_gets_pages(stage: Stage, path: str, host: str) -> None:
    """hey is pure Go: its own system calls, its own poller, and here its own resolver."""
    hey = program("hey", "hey")
    text = stage.run([hey, "-n", "40", "-c", "4", "-disable-keepalive", f"http://{host}{path}"], GODEBUG="netdns=go")
    assert "[200]\t40 responses" in text


@pytest.mark.parametrize(("host", "family"), [(V4.in_url, V4), (V6.in_url, V6), ("v4.web.test", V4)])
def test_chromium_shows_a_page(stage: Stage, path: str, tmp_path: Path, host: str, family: Family) -> None:
    browser = program("chromium-headless-shell", "chromium-headless-shell")
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"]
    found = facts(stage.run([browser, *options, "--dump-dom", f"http://{host}{path}"]))
    assert (found.local, found.path, found.host) == ((family.actual, WEB.actual), path, host)
