# SPDX-License-Identifier: Apache-2.0
"""nft and iptables-restore, run in a private network namespace. Must not measure, and must not know what they load."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from cgnetd.kernel.cgroup import find_root
from support.netns import PrivateNetns

# nft looks for cgroups below /sys/fs/cgroup alone, where hosts with both hierarchies have them in a directory.
_AT_USUAL_PLACE = 'mount --bind "$0" /sys/fs/cgroup && exec "$@"'
IPTABLES = "iptables-legacy-restore"  # the other one is nftables by another name


def nft_command(network: PrivateNetns) -> list[str]:
    """Loads what it reads from stdin, in one transaction."""
    moved = ["unshare", "--mount", "sh", "-c", _AT_USUAL_PLACE, os.fspath(find_root())]
    return [*_enter(network), *moved, "nft", "-f", "-"]


def iptables_command(network: PrivateNetns) -> list[str]:
    """The same; replaces the table in one step."""
    return [*_enter(network), IPTABLES]


def load(command: Sequence[str], text: str) -> None:
    """RuntimeError with what the command says if it fails."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-1]}: {done.stderr.strip()[:500]}")


def lacking() -> dict[str, str]:
    """What cannot be compared here, and the program that is missing."""
    return {
        name: program for name, program in (("nftables", "nft"), ("iptables", IPTABLES)) if not shutil.which(program)
    }


def _enter(network: PrivateNetns) -> list[str]:
    return ["nsenter", f"--net={network.path}"]
