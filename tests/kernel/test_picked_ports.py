# SPDX-License-Identifier: Apache-2.0
"""A bind() to port 0 is judged by the port that the kernel picks, wherever bind left its mark for post_bind."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.datapath.compile import compile_image
from cgnetd.kernel.layout import PICK, PICKS
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
POLICY = b"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: ["/app"]}
  bind: [{action: deny, log: false, ports: [1024-65535]}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: open}
spec:
  subject: {cgroups: ["/open"]}
  bind: [{action: allow, ports: [ephemeral]}, {action: deny, ports: [1-65535]}]
"""
ABSENT = "198.51.100.1"  # of no interface: bind() fails after its hook, before the kernel picks a port
SOMEBODY = 1 << 30  # no thread has such an id


@pytest.fixture
def enforcement(private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Enforcement]:
    for name in ("app", "open"):
        private_cgroup.child(name)
    result = parse([Source("a.yaml", POLICY)], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set, result.problems
    with Enforcement(private_cgroup.path, pin_dir, objects) as made:
        made.load(compile_image(result.policy_set, default_action=Action.ALLOW, generation=1))
        yield made


def marks(enforcement: Enforcement) -> list[tuple[int, int]]:
    """Thread and socket of the marks in places of threads."""
    found = (enforcement.store.maps["picks"].lookup(place.to_bytes(4, "little")) for place in range(PICKS))
    return [mark for mark in map(PICK.unpack, filter(None, found)) if mark[0]]


def take_every_place(enforcement: Enforcement) -> None:
    for place in range(PICKS):
        enforcement.store.maps["picks"].update(place.to_bytes(4, "little"), PICK.pack(SOMEBODY, 1))


def bind(*addresses: str, family: socket.AddressFamily = socket.AF_INET) -> int:
    """Bind a new UDP socket to port 0 of each address in turn: 0, or the errno of the last one."""
    answer = 0
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        for address in addresses:
            try:
                made.bind((address, 0))
                answer = 0
            except OSError as error:
                answer = error.errno or -1
    return answer


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_picked_port_is_judged_and_the_mark_is_gone(
    private_cgroup: PrivateCgroup, enforcement: Enforcement, family: socket.AddressFamily, address: str
) -> None:
    assert private_cgroup.child("app").call(lambda: bind(address, family=family)) == errno.EPERM
    assert private_cgroup.child("open").call(lambda: bind(address, family=family)) == 0
    assert not marks(enforcement)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_picked_port_is_judged_when_another_thread_has_the_place(
    private_cgroup: PrivateCgroup, enforcement: Enforcement, family: socket.AddressFamily, address: str
) -> None:
    take_every_place(enforcement)
    assert private_cgroup.child("app").call(lambda: bind(address, family=family)) == errno.EPERM
    assert private_cgroup.child("open").call(lambda: bind(address, family=family)) == 0
    assert marks(enforcement) == [(SOMEBODY, 1)] * PICKS


def test_mark_of_a_bind_that_failed_is_renewed_by_the_next_one(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    assert private_cgroup.child("app").call(lambda: bind(ABSENT)) == errno.EADDRNOTAVAIL
    assert len(marks(enforcement)) == 1
    assert private_cgroup.child("app").call(lambda: bind(ABSENT, "127.0.0.1")) == errno.EPERM
    assert len(marks(enforcement)) == 1


def test_mark_of_another_socket_of_the_thread_says_nothing(
    private_cgroup: PrivateCgroup, enforcement: Enforcement
) -> None:
    """A bind to a given port is judged as such, also when the thread had failed to bind another socket to port 0."""

    def calls() -> list[int]:
        return [bind(ABSENT), bind_given()]

    def bind_given() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            try:
                made.bind(("127.0.0.1", 80))
            except OSError as error:
                return error.errno or -1
        return 0

    assert private_cgroup.child("app").call(calls) == [errno.EADDRNOTAVAIL, 0]
    assert not marks(enforcement)
