# SPDX-License-Identifier: Apache-2.0
"""The real daemon and what comes and goes on its host: devices of sockets, addresses that flows leave from."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.governed import Governed, eventually, governed
from support.netns import PrivateNetns, private_netns
from support.sandbox import PrivateCgroup

SO_BINDTOIFINDEX = 62
SOURCE = "10.9.0.7"
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: [/app]}}
  egress:
    - {{name: leave, action: allow, to: [192.0.2.0/24], source: {{address: {SOURCE}}}}}
  socket:
    - {{name: vpn, action: allow, families: [inet6], set: {{device: wg7}}}}
"""


@pytest.fixture
def place() -> Iterator[PrivateNetns]:
    """A namespace with the pair of devices va and vb, and a way to 192.0.2.0/24."""
    with private_netns() as made:
        made.ip(
            "link add va type veth peer name vb",
            "address add 10.9.0.1/24 dev va",
            "link set va up",
            "link set vb up",
            "route add 192.0.2.0/24 via 10.9.0.2",
        )
        yield made


@pytest.fixture
def app(
    tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path, place: PrivateNetns
) -> Iterator[Governed]:
    """A daemon that lives in the namespace, and passes seldom."""
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        found.daemon.write_policy("app.yaml", POLICY)
        place.call(lambda: found.start("--set", "limits.reconcile_interval=1h"))
        yield found


def device_of(app: Governed, place: PrivateNetns) -> str:
    """The device that a new socket is put on, or the errno."""

    def call() -> str:
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
                index = made.getsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX)
                return socket.if_indextoname(index) if index else ""
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    found: str = place.call(lambda: app.app.call(call))
    return found


def source_of(app: Governed, place: PrivateNetns) -> str:
    """The address that a flow leaves from, or the errno."""

    def call() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            number = made.connect_ex(("192.0.2.1", 9))
            return errno.errorcode[number] if number else str(made.getsockname()[0])

    found: str = place.call(lambda: app.app.call(call))
    return found


def sent(app: Governed, place: PrivateNetns) -> int:
    """The errno of one datagram, 0 if it left."""

    def call() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            try:
                made.sendto(b"x", ("192.0.2.1", 9))
            except OSError as error:
                return error.errno or 0
            return 0

    found: int = place.call(lambda: app.app.call(call))
    return found


def status(app: Governed) -> dict[str, Any]:
    return app.daemon.ask("status")


def test_sockets_wait_for_their_device_and_follow_it(app: Governed, place: PrivateNetns) -> None:
    assert device_of(app, place) == "ENODEV"
    assert app.await_record("device-missing")["device"] == "wg7"
    assert "waiting for device wg7" in status(app)["waiting"]
    place.ip("link add wg7 type veth peer name wg7p")
    app.await_record("device-found")
    assert device_of(app, place) == "wg7"
    assert status(app)["devices"][0]["present"] is True


def test_device_that_is_renamed_unplugged_and_plugged_again_is_followed(app: Governed, place: PrivateNetns) -> None:
    place.ip("link add wg7 type veth peer name wg7p")
    eventually(lambda: device_of(app, place) == "wg7", "the device")
    first = status(app)["devices"][0]["index"]
    place.ip("link set wg7 down", "link set wg7 name other")
    app.await_record("device-missing", after=1)
    assert device_of(app, place) == "ENODEV"
    place.ip("link set other name wg7")
    app.await_record("device-found", after=1)
    assert device_of(app, place) == "wg7"
    place.ip("link delete wg7")
    app.await_record("device-missing", after=2)
    assert device_of(app, place) == "ENODEV"
    place.ip("link add wg7 type veth peer name wg7p")
    app.await_record("device-found", after=2)
    assert device_of(app, place) == "wg7"
    assert status(app)["devices"][0]["index"] != first


def test_flows_wait_for_their_source_address_and_follow_it(app: Governed, place: PrivateNetns) -> None:
    assert source_of(app, place) == "EADDRNOTAVAIL"
    assert app.await_record("source-missing")["address"] == SOURCE
    event = app.await_record("flow")
    assert (event["verdict"], event["errno"], event["rule"]) == ("deny", "EADDRNOTAVAIL", "leave")
    assert event["reason"].startswith("the host does not have the rule's source address")
    assert f"waiting for source address {SOURCE}" in status(app)["waiting"]
    place.ip(f"address add {SOURCE}/24 dev va")
    app.await_record("source-found")
    assert (source_of(app, place), sent(app, place)) == (SOURCE, 0)
    place.ip(f"address delete {SOURCE}/24 dev va")
    app.await_record("source-missing", after=1)
    assert source_of(app, place) == "EADDRNOTAVAIL"


def test_restart_tells_again_what_is_missing_and_knows_what_came_meanwhile(app: Governed, place: PrivateNetns) -> None:
    app.await_record("device-missing")
    app.daemon.kill()
    place.ip(f"address add {SOURCE}/24 dev va")
    assert sent(app, place) == errno.EADDRNOTAVAIL  # nobody was there to tell the programs
    place.call(app.start)
    assert sent(app, place) == 0
    assert app.records("drift-repaired") == []
    assert len(app.records("device-missing")) == 2
    assert len(app.records("source-missing")) == 1


def test_host_is_not_followed_when_no_policy_speaks_of_it(app: Governed, place: PrivateNetns) -> None:
    plain = POLICY.replace(f", source: {{address: {SOURCE}}}", "").replace("set: {device: wg7}", "set: {mark: 7}")
    assert plain != POLICY
    app.daemon.write_policy("app.yaml", plain)
    app.daemon.ask("reload")
    eventually(lambda: not netlink_sockets(app), "the end of following")
    assert status(app)["waiting"] == []
    assert app.records("device-found") == []
    app.daemon.write_policy("app.yaml", POLICY)
    app.daemon.ask("reload")
    place.ip("link add wg7 type veth peer name wg7p")
    app.await_record("device-found")
    assert device_of(app, place) == "wg7"


def netlink_sockets(app: Governed) -> list[str]:
    """Inodes of the daemon's sockets that hear of links."""
    lines = Path(f"/proc/{app.daemon.pid}/net/netlink").read_text().splitlines()[1:]
    ours = set()
    for path in Path(f"/proc/{app.daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            ours.add(path.readlink().name)
    return [line.split()[-1] for line in lines if f"socket:[{line.split()[-1]}]" in ours and int(line.split()[3], 16)]
