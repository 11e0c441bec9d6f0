# SPDX-License-Identifier: Apache-2.0
"""ssh with a private sshd behind the redirect: what it knows its peer by is the address it asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import servers
from clients.policies import FAMILIES, SSH, Family
from clients.stage import Stage, program


@pytest.fixture(scope="module")
def keys(stage: Stage) -> Iterator[Path]:
    with servers.sshd(stage) as directory:
        yield directory


@pytest.mark.parametrize("family", FAMILIES)
def test_ssh_runs_a_command_on_the_server_behind(stage: Stage, keys: Path, tmp_path: Path, family: Family) -> None:
    """The host key is known for the address asked for alone, which ssh also compares with the peer's."""
    known = tmp_path / "known_hosts"
    known.write_text(f"{family.asked} {(keys / 'host_key.pub').read_text()}")
    options = ["StrictHostKeyChecking=yes", "CheckHostIP=yes", "BatchMode=yes", "ConnectTimeout=10"]
    options += [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null", f"IdentityFile={keys / 'user_key'}"]
    command = [program("openssh-client", "ssh"), "-v", "-F", "none", *(f"-o{option}" for option in options)]
    text = stage.run(
        [*command, f"root@{family.asked}", "echo reached $SSH_CONNECTION; head -c 1000000 /dev/zero | wc -c"]
    )
    first, second = text.splitlines()[:2]
    assert first.startswith("reached ")
    assert first.endswith(f" {family.actual} {SSH.actual}")
    assert int(second) == 1_000_000
    assert f"Authenticated to {family.asked} ([{family.asked}]:{SSH.asked})" in text
