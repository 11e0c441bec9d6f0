# SPDX-License-Identifier: Apache-2.0
"""HTTP/3: many datagrams over a connected UDP socket, both ways, with control messages for ECN on each."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import servers
from clients.policies import FAMILIES, QUIC, Family
from clients.stage import Stage, program


@pytest.fixture(scope="module")
def page(stage: Stage) -> Iterator[str]:
    with servers.quic(stage) as text:
        yield text


@pytest.mark.parametrize("family", FAMILIES)
def test_quic_client_downloads(stage: Stage, page: str, tmp_path: Path, family: Family) -> None:
    client = program("ngtcp2-client", "gtlsclient")
    options = ["-q", "--exit-on-all-streams-close", "--timeout=60s", f"--download={tmp_path}", "--sni=quic.test"]
    stage.run([client, *options, family.asked, str(QUIC.asked), "https://quic.test/page.txt"])
    assert (tmp_path / "page.txt").read_text() == page


def test_chromium_shows_a_page_by_quic(stage: Stage, page: str, tmp_path: Path) -> None:
    """Nothing listens on the TCP port of that name."""
    browser = program("chromium-headless-shell", "chromium-headless-shell")
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}"]
    options += ["--origin-to-force-quic-on=v4.quic.test:443", "--ignore-certificate-errors-spki-list=" + _pin(stage)]
    text = stage.run([browser, *options, "--dump-dom", "https://v4.quic.test/page.txt"])
    assert text.count(page.splitlines()[0]) == page.count("\n")


def _pin(stage: Stage) -> str:
    """SHA-256 of the public key of the server's certificate, in base64."""
    command = [
        program("openssl", "openssl"),
        "pkey",
        "-in",
        str(stage.directory / "quic/key.pem"),
        "-pubout",
        "-outform",
        "DER",
    ]
    key = subprocess.run(command, check=True, capture_output=True).stdout
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
