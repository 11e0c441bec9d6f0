# SPDX-License-Identifier: Apache-2.0
"""HTTP/3: many datagrams over a connected UDP socket, both ways, with control messages for ECN on each."""

from __future__ import annotations

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
    options = ["-q", "--exit-on-all-streams-close", "--timeout=5s", f"--download={tmp_path}", "--sni=quic.test"]
    stage.run([client, *options, family.asked, str(QUIC.asked), "https://quic.test/page.txt"])
    assert (tmp_path / "page.txt").read_text() == page
