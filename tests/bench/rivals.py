# SPDX-License-Identifier: Apache-2.0
"""What else sends a connection elsewhere: nftables DNAT with its conntrack, and a proxy. Must not measure.

Each works in one network namespace: hooks of netfilter and conntrack are a namespace's own.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.turns import other_cpu
from support.netns import PrivateNetns

_SETTINGS = Path("/proc/sys/net/netfilter")
# Flows of calls that are over: with the usual 10 s to 180 s the table would be full before the end.
_SHORT_LIVED = ("nf_conntrack_tcp_timeout_close", "nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
_DEADLINE_S = 10.0

_PROXY = """\
global
    nbthread 1
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen detour
    bind {asked}
    server actual {actual}
"""


def lacking(program: str) -> bool:
    return shutil.which(program) is None


def dnat(network: PrivateNetns, asked: tuple[str, int], actual: tuple[str, int]) -> None:
    """TCP and UDP to `asked` goes to `actual`, for as long as the namespace is there."""
    rules = "\n".join(
        f"add rule ip bench out ip daddr {asked[0]} {protocol} dport {asked[1]} dnat to {actual[0]}:{actual[1]}"
        for protocol in ("tcp", "udp")
    )
    ruleset = f"add table ip bench\nadd chain ip bench out {{ type nat hook output priority -100; }}\n{rules}\n"
    enter = ["nsenter", f"--net={network.path}"]
    subprocess.run([*enter, "nft", "-f", "-"], input=ruleset, text=True, check=True)
    network.call(_forget_soon)


def _forget_soon() -> None:
    for name in _SHORT_LIVED:
        (_SETTINGS / name).write_text("1", encoding="ascii")


@contextmanager
def proxy(network: PrivateNetns, scratch: Path, asked: tuple[str, int], actual: tuple[str, int]) -> Iterator[None]:
    """HAProxy, one thread, on another CPU than the one that measures."""
    config = scratch / "haproxy.cfg"
    config.write_text(_PROXY.format(asked=":".join(map(str, asked)), actual=":".join(map(str, actual))))
    enter = ["nsenter", f"--net={network.path}"]
    process = subprocess.Popen([*enter, "haproxy", "-db", "-q", "-f", config])
    try:
        os.sched_setaffinity(process.pid, {other_cpu()})
        network.call(lambda: _await(process, asked))
        yield
    finally:
        process.kill()
        process.wait()


def _await(process: subprocess.Popen[bytes], at: tuple[str, int]) -> None:
    """Until somebody listens. Not by trying: each connection would be passed on to the server, and wait there."""
    address, *_ = struct.unpack("=I", socket.inet_aton(at[0]))
    line = f" {address:08X}:{at[1]:04X} 00000000:0000 0A "
    deadline = time.monotonic() + _DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        if line in Path("/proc/thread-self/net/tcp").read_text(encoding="ascii"):
            return
        time.sleep(0.02)
    raise RuntimeError("haproxy does not listen")
