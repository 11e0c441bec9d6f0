# SPDX-License-Identifier: Apache-2.0
"""B20: the extra subflows of MPTCP are opened by a kernel thread; the application's policy holds them all the same."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import libc
from support.calls import MPTCP
from support.enforce import Enforcement
from support.judge import ref_name
from support.sandbox import PrivateCgroup

POLICY = b"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: strict}
spec:
  subject: {cgroups: [/strict]}
  egress:
    - {name: first, action: allow, to: [10.31.0.1]}
    - {name: extra, action: deny, to: [10.31.0.9]}
"""
NETWORK = """link set lo up
addr add 10.31.0.1/32 dev lo
addr add 10.31.0.9/32 dev lo
mptcp limits set subflow 2 add_addr_accepted 2
mptcp endpoint add 10.31.0.9 dev lo signal
"""
SOL_MPTCP, MPTCP_INFO = 284, 1
PATIENCE_S = 60.0


@pytest.fixture
def enforcement(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Enforcement]:
    if shutil.which("ip") is None or not Path("/proc/sys/net/mptcp/enabled").exists():
        pytest.skip("no ip command or no MPTCP in this kernel")
    result = parse([Source("mptcp.yaml", POLICY)], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set
    private_cgroup.child("strict")
    with Enforcement(private_cgroup.path, pin_dir, objects) as made:
        made.load(compile_image(result.policy_set, default_action=Action.ALLOW, generation=1))
        yield made


def extra_subflows(is_over: Callable[[int], bool]) -> int:
    """How many the kernel opened to the second address that the server announces, in a namespace of our own: looked at
    again and again until `is_over`, which is given the number, or for so long that it never will be."""
    libc.unshare(libc.CLONE_NEWNET)
    subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, check=True)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as server,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP) as client,
    ):
        server.bind(("0.0.0.0", 5000))
        server.listen(4)
        client.connect(("10.31.0.1", 5000))
        accepted, _ = server.accept()
        found, until = 0, time.monotonic() + PATIENCE_S
        with accepted:
            while not is_over(found) and time.monotonic() < until:
                client.sendall(b"x")
                accepted.recv(1)
                accepted.sendall(b"y")
                client.recv(1)
                time.sleep(0.02)
                found = client.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)[0]
        return found


def test_extra_subflow_is_held_by_the_policy_of_the_socket(
    enforcement: Enforcement, private_cgroup: PrivateCgroup
) -> None:
    index = enforcement.image.index
    extra = next(ref.rule_id for ref in index.refs if ref_name(index, ref.rule_id) == "strict/extra")

    def denied(_subflows: int = 0) -> bool:
        with enforcement.slot() as slot:
            return slot.totals()[2 * extra] >= 1

    assert private_cgroup.child("free").call(lambda: extra_subflows(bool)) == 1
    assert not denied()
    assert PrivateCgroup(private_cgroup.path / "strict").call(lambda: extra_subflows(denied)) == 0
    assert denied()
