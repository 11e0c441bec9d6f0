# SPDX-License-Identifier: Apache-2.0
"""A network namespace whose routes lead nowhere, and a mount namespace whose names are resolved by our own server.

Nothing that a client tries reaches the network outside. Must not know policies, clients or servers.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from support.sandbox import PrivateCgroup

PATIENCE_S = 180.0  # a new cluster of PostgreSQL takes most of a minute beside others
_LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # TCP_LISTEN, TCP_CLOSE

# Some programs ask for the route to an address before they use it: the default one leads to a cable with nobody behind.
# sshd wants its directory below /run and an account that is not locked. /etc/resolv.conf is often a link into /run.
_SETUP = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
resolver=$(readlink -m /etc/resolv.conf)
case $resolver in /run/*) mkdir -p "${resolver%/*}"; : > "$resolver" ;; esac
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
mount --bind "$1/shadow" /etc/shadow
shift
ip link set lo up
ip link add out type veth peer name nobody
ip address add 198.51.100.2/24 dev out
ip address add 2001:db8:51::2/64 dev out nodad
ip link set out up
ip link set nobody up
ip route add default dev out
ip -6 route add default dev out
for address; do
    case $address in *:*) ip address add "$address" dev lo nodad ;; *) ip address add "$address" dev lo ;; esac
done
echo ready
exec cat
"""


class World:
    """The namespaces, held by a process in `cgroup`. They end with that process, and it ends with this one.

    `present` are addresses that the loopback device has besides its own, with prefix lengths.
    """

    def __init__(self, directory: Path, cgroup: PrivateCgroup, nameserver: str, present: Iterable[str]) -> None:
        (directory / "resolv.conf").write_text(f"nameserver {nameserver}\noptions timeout:10 attempts:2\n")
        (directory / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
        (directory / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        script = ["unshare", "--mount", "--net", "/bin/sh", "-c", _SETUP, "sh", os.fspath(directory), *present]
        self._holder = cgroup.popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError("the namespaces could not be made; what failed is on stderr")

    def inside(self, argv: Sequence[str], directory: Path) -> list[str]:
        """The command line that runs `argv` in the namespaces, in `directory`."""
        namespaces = f"/proc/{self._holder.pid}/ns"
        return ["nsenter", f"--net={namespaces}/net", f"--mount={namespaces}/mnt", f"--wd={directory}", *argv]

    def await_listeners(self, server: subprocess.Popen[bytes], wanted: Iterable[tuple[str, int]]) -> None:
        """Returns when all (table, port) are there; tables are tcp, tcp6, udp, udp6. RuntimeError if it ends."""
        missing, deadline = set(wanted), time.monotonic() + PATIENCE_S
        while missing := {place for place in missing if place[1] not in self._ports(place[0])}:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server at {sorted(missing)}, exit code {server.poll()}")
            time.sleep(0.02)

    def _ports(self, table: str) -> set[int]:
        lines = Path(f"/proc/{self._holder.pid}/net/{table}").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTENING[table]}

    def close(self) -> None:
        self._holder.communicate()
