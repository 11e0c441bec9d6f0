# SPDX-License-Identifier: Apache-2.0
"""socket() by the rules of `socket`: who may have which sockets, and what is put on them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.record import FlowRecord, decode
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import libc, sandbox
from support.enforce import Enforcement
from support.netns import PrivateNetns, private_netns
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

MARK, PRIORITY, DEVICE, LATER = 0xC0FFEE01, 5, "cgnt0", "cgnt1"
SO_BINDTOIFINDEX = 62
IPPROTO_UDPLITE = 136

POLICIES = f"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: marked}}
spec:
  subject: {{cgroups: ["/marked"]}}
  socket:
    - {{name: no-raw, action: deny, types: [raw], errno: EACCES}}
    - {{name: no-datagrams-v6, action: deny, families: [inet6], types: [dgram]}}
    - {{name: options, action: allow, families: [inet], set: {{mark: {MARK:#x}, priority: {PRIORITY}}}}}
  default: {{socket: allow}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: bound}}
spec:
  subject: {{cgroups: ["/bound"]}}
  socket: [{{name: to-device, action: allow, set: {{device: {DEVICE}}}, log: true}}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: later}}
spec:
  subject: {{cgroups: ["/later"]}}
  socket: [{{name: to-device, action: allow, set: {{device: {LATER}, mark: 1}}}}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: closed}}
spec:
  subject: {{cgroups: ["/closed"]}}
  default: {{socket: deny}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: tried}}
spec:
  subject: {{cgroups: ["/tried"]}}
  mode: audit
  socket: [{{name: none, action: deny, errno: EACCES}}]
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: sends}}
spec:
  subject: {{cgroups: ["/sends"]}}
  egress: [{{name: no-udplite, action: deny, protocols: [udplite], errno: EHOSTUNREACH}}]
  socket: [{{name: options, action: allow, set: {{priority: {PRIORITY}}}}}]
"""
CGROUPS = ("marked", "bound", "later", "closed", "tried", "sends", "free")


class Options(NamedTuple):
    mark: int
    priority: int
    device: int  # index


NOTHING = Options(0, 0, 0)


def opened(family: int, kind: int, protocol: int = 0) -> Options | int:
    """What a new socket has, or the errno of socket()."""
    try:
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        return error.errno or -1
    with made:
        mark, priority, device = (
            made.getsockopt(socket.SOL_SOCKET, option)
            for option in (socket.SO_MARK, socket.SO_PRIORITY, SO_BINDTOIFINDEX)
        )
    return Options(mark & 0xFFFFFFFF, priority, device)


class Place(NamedTuple):
    enforcement: Enforcement
    root: PrivateCgroup
    home: PrivateNetns  # that the daemon tells the devices of

    def open(self, cgroup: str, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> Options | int:
        def call() -> Options | int:
            libc.enter_netns(self.home.path)
            return opened(family, kind, protocol)

        found: Options | int = self.root.child(cgroup).call(call)
        return found

    def index_of(self, device: str) -> int:
        return self.home.call(lambda: socket.if_nametoindex(device))

    def tell(self, device: str, index: int) -> None:
        """As the daemon does when a device comes or goes."""
        with self.enforcement.live() as live:
            live.set(self.enforcement.image.live.devices.index(device), index)


@pytest.fixture(scope="module")
def place(objects: Path) -> Iterator[Place]:
    with sandbox.cgroup() as root, sandbox.bpffs_mount() as bpffs, private_netns() as home:
        for name in CGROUPS:
            root.child(name)
        home.ip(f"link add {DEVICE} type veth peer name far0", f"link set {DEVICE} up")
        result = parse([Source("socket.yaml", POLICIES.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
        assert result.policy_set, result.problems
        image = compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)
        with Enforcement(root.path, bpffs / "cgnetd", objects) as enforcement:
            home.call(lambda: enforcement.load(image))
            yield Place(enforcement, root, home)


V4, V6 = socket.AF_INET, socket.AF_INET6


class Case(NamedTuple):
    cgroup: str
    family: int
    kind: int
    protocol: int
    found: Options | int


CASES = {
    "stream": Case("marked", V4, socket.SOCK_STREAM, 0, Options(MARK, PRIORITY, 0)),
    "datagram": Case("marked", V4, socket.SOCK_DGRAM, 0, Options(MARK, PRIORITY, 0)),
    "other-family": Case("marked", V6, socket.SOCK_STREAM, 0, NOTHING),
    "denied-datagram": Case("marked", V6, socket.SOCK_DGRAM, 0, errno.EPERM),
    "denied-raw": Case("marked", V4, socket.SOCK_RAW, socket.IPPROTO_UDP, errno.EACCES),
    "denied-raw-v6": Case("marked", V6, socket.SOCK_RAW, socket.IPPROTO_UDP, errno.EACCES),
    "default": Case("closed", V4, socket.SOCK_STREAM, 0, errno.EPERM),
    "default-v6": Case("closed", V6, socket.SOCK_DGRAM, 0, errno.EPERM),
    "audit": Case("tried", V4, socket.SOCK_STREAM, 0, NOTHING),
    "ungoverned": Case("free", V4, socket.SOCK_RAW, socket.IPPROTO_UDP, NOTHING),
    "egress-too": Case("sends", V4, socket.SOCK_DGRAM, 0, Options(0, PRIORITY, 0)),
    "egress-denies": Case("sends", V4, socket.SOCK_DGRAM, IPPROTO_UDPLITE, errno.EHOSTUNREACH),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_new_sockets_get_what_the_rules_say(place: Place, case: Case) -> None:
    assert place.open(case.cgroup, case.family, case.kind, case.protocol) == case.found


@pytest.mark.parametrize("cgroup", ["closed", "marked"])
def test_sockets_of_other_families_are_nobodys_business(place: Place, cgroup: str) -> None:
    def call() -> bool:
        with socket.socket(socket.AF_UNIX), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW):
            return True

    assert place.root.child(cgroup).call(call)


@pytest.mark.parametrize("family", [V4, V6])
def test_sockets_are_bound_to_the_device(place: Place, family: int) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        assert place.open("bound", family, kind) == Options(0, 0, place.index_of(DEVICE))


def test_device_that_comes_and_goes_is_followed(place: Place) -> None:
    assert place.open("later", V4) == errno.ENODEV
    place.home.ip(f"link add {LATER} type veth peer name far1")
    place.tell(LATER, place.index_of(LATER))
    assert place.open("later", V4) == Options(1, 0, place.index_of(LATER))
    place.home.ip(f"link del {LATER}")
    place.tell(LATER, 0)
    assert place.open("later", V4) == errno.ENODEV


def test_socket_of_another_network_namespace_is_refused(place: Place) -> None:
    """An index there is another device, or none."""

    def call() -> Options | int:
        libc.unshare(libc.CLONE_NEWNET)
        return opened(V4, socket.SOCK_STREAM)

    assert place.root.child("bound").call(call) == errno.ENODEV
    assert place.root.child("marked").call(call) == Options(MARK, PRIORITY, 0)


def test_refused_and_shadow_denied_sockets_make_events(place: Place) -> None:
    records: list[FlowRecord] = []

    def note(data: bytes) -> None:
        record = decode(data)
        assert isinstance(record, FlowRecord)
        records.append(record)

    assert place.open("later", V6, socket.SOCK_DGRAM) == errno.ENODEV
    assert place.open("tried", V6, socket.SOCK_DGRAM) == NOTHING
    with place.enforcement.store.ring(note) as ring:
        ring.consume()
    mine = {r.cgroup_id: r for r in records if r.family == abi.FAMILY_V6 and r.type == socket.SOCK_DGRAM}
    refused, tried = (mine[place.root.child(name).id] for name in ("later", "tried"))
    assert {refused.hook, tried.hook} == {abi.HOOK_CREATE}
    assert (refused.denied, refused.errno, refused.reason) == (True, errno.ENODEV, abi.REASON_NO_DEVICE)
    assert place.enforcement.image.index.refs[refused.rule_id].rule == "to-device"
    assert (tried.denied, tried.shadow_denied) == (False, True)
