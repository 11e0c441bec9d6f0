# SPDX-License-Identifier: Apache-2.0
"""Devices and local addresses followed live, in network namespaces of the tests."""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgnetd.kernel.netlink import HostLinks
from support.netns import PrivateNetns, private_netns

pytestmark = pytest.mark.usefixtures("no_fd_leaks")
QUIET_S = 0.2
PATIENCE_S = 60.0


@pytest.fixture
def place() -> Iterator[PrivateNetns]:
    """A namespace with the pair of devices va and vb, both up. They have no IPv6 addresses of their own: the kernel
    would give them those some seconds later, when nothing is to happen."""
    with private_netns() as made:
        own = [f"link set {name} addrgenmode none" for name in ("va", "vb")]
        made.ip("link add va type veth peer name vb", *own, "link set va up", "link set vb up")
        yield made


class Followed:
    """Links of a place: what is asked is asked in its namespace."""

    def __init__(self, place: PrivateNetns) -> None:
        self.place = place
        self.links = place.call(HostLinks)

    def read(self) -> bool:
        return self.place.call(self.links.read)

    def after(self, *commands: str, until: Callable[[], bool]) -> None:
        """Do these commands and read until `until` holds. Some are carried out by the kernel later than they are said
        to be (IPv6 addresses)."""
        self.place.ip(*commands)
        deadline = time.monotonic() + PATIENCE_S
        while not self.read() or not until():
            assert time.monotonic() < deadline, f"never came, after {commands}"
            select.select([self.links.fd], [], [], QUIET_S)

    def has(self, *addresses: str) -> bool:
        return self.links.present(addresses) == set(addresses)

    def lacks(self, *addresses: str) -> bool:
        return not self.links.present(addresses)


@pytest.fixture
def followed(place: PrivateNetns) -> Iterator[Followed]:
    made = Followed(place)
    settle(made)
    yield made
    made.links.close()


def settle(followed: Followed) -> None:
    """Devices that come up are told of again when they are."""
    while select.select([followed.links.fd], [], [], QUIET_S)[0]:
        followed.read()


def bindable(place: PrivateNetns, address: str) -> bool:
    """What the kernel itself says."""

    def bind() -> bool:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as made:
            try:
                made.bind((address, 0))
            except OSError:
                return False
            return True

    return place.call(bind)


def test_devices_are_known_at_once(followed: Followed) -> None:
    wanted = {name: index for index, name in followed.place.call(socket.if_nameindex)}
    assert dict(followed.links.indexes()) == wanted
    assert set(wanted) >= {"lo", "va", "vb"}
    assert followed.links.device_index("va") == wanted["va"]
    assert followed.links.device_index("wg0") == 0


def test_renamed_device_keeps_its_index(followed: Followed) -> None:
    index = followed.links.device_index("va")
    links = followed.links
    followed.after(
        *("link set va down", "link set va name wg0", "link set wg0 up"),
        until=lambda: (links.device_index("va"), links.device_index("wg0")) == (0, index),
    )


def test_names_that_two_devices_exchange_are_told_right(followed: Followed) -> None:
    a, b = (followed.links.device_index(name) for name in ("va", "vb"))
    followed.place.ip("link set va down", "link set vb down")
    links = followed.links
    followed.after(
        *("link set va name aside", "link set vb name va", "link set aside name vb"),
        until=lambda: (links.device_index("va"), links.device_index("vb")) == (b, a),
    )


def test_unplugged_device_is_gone_and_a_new_one_is_another(followed: Followed) -> None:
    links = followed.links
    before = links.device_index("va")
    followed.after("link del va", until=lambda: links.device_index("va") == 0)
    followed.after("link add va type veth peer name vb", until=lambda: links.device_index("va") != 0)
    assert links.device_index("va") != before
    assert links.device_index("va") == followed.place.call(lambda: socket.if_nametoindex("va"))


def test_device_moved_to_another_namespace_is_gone(followed: Followed) -> None:
    with private_netns() as other:
        followed.after(f"link set va netns {other.path}", until=lambda: followed.links.device_index("va") == 0)
        assert "va" in dict(map(reversed, other.call(socket.if_nameindex)))  # type: ignore[arg-type]


def test_port_that_leaves_a_bridge_is_still_a_device(followed: Followed) -> None:
    index = followed.links.device_index("va")
    links = followed.links
    followed.after(
        *("link add bridge type bridge", "link set va master bridge", "link set va nomaster", "link set vb down"),
        *("link set vb name told",),
        until=lambda: links.device_index("told") != 0,
    )
    assert links.device_index("va") == index


@pytest.mark.parametrize(
    ("address", "command"), [("10.7.0.1", "10.7.0.1/24 dev va"), ("fd07::1", "fd07::1/64 dev va nodad")]
)
def test_address_comes_and_goes(followed: Followed, address: str, command: str) -> None:
    assert followed.links.present([address]) == frozenset()
    assert bindable(followed.place, address) is False
    followed.after(f"addr add {command}", until=lambda: followed.has(address))
    assert followed.links.present([address, "192.0.2.1"]) == {address}
    assert address in followed.links.addresses()
    assert bindable(followed.place, address) is True
    followed.after(f"addr del {command.removesuffix(' nodad')}", until=lambda: followed.lacks(address))
    assert address not in followed.links.addresses()


ADDRESSES = ("addr add 10.7.0.1/24 dev va", "addr add fd07::1/64 dev va nodad")


def test_addresses_go_with_their_device(followed: Followed) -> None:
    wanted = ("10.7.0.1", "fd07::1", "10.8.3.4")
    followed.after(*ADDRESSES, "route add local 10.8.0.0/16 dev va", until=lambda: followed.has(*wanted))
    followed.after("link del va", until=lambda: followed.lacks(*wanted))


@pytest.mark.parametrize("address", ["10.7.0.1", "fd07::1"])
def test_address_of_a_device_that_is_down_is_told_as_the_kernel_has_it(followed: Followed, address: str) -> None:
    followed.after(*ADDRESSES, until=lambda: followed.has("10.7.0.1", "fd07::1"))
    followed.place.ip("link set va down")
    settle(followed)
    assert (followed.links.present([address]) == {address}) == bindable(followed.place, address)


def test_local_networks_count(followed: Followed) -> None:
    assert followed.links.present(["127.0.0.1", "127.9.9.9", "::1"]) == {"127.0.0.1", "127.9.9.9", "::1"}
    assert followed.links.present(["10.9.1.2"]) == frozenset()
    followed.after("route add local 10.9.0.0/16 dev lo", until=lambda: followed.has("10.9.1.2"))
    assert followed.lacks("10.10.1.2")
    followed.after("route del local 10.9.0.0/16 dev lo", until=lambda: followed.lacks("10.9.1.2"))


def test_loopback_that_is_down_has_no_addresses(followed: Followed) -> None:
    followed.place.ip("link set lo down")
    settle(followed)
    assert followed.has("127.0.0.1") == bindable(followed.place, "127.0.0.1")
    assert followed.has("::1") == bindable(followed.place, "::1")


def test_address_is_known_however_it_is_written(followed: Followed) -> None:
    commands = ("addr add fd07::1/64 dev va nodad", "addr add ::7.8.9.10/128 dev va nodad")
    followed.after(*commands, until=lambda: followed.has("FD07:0:0::1", "fd07::1", "::708:90a", "::7.8.9.10"))
    assert {"fd07::1", "::708:90a"} <= followed.links.addresses()
    with pytest.raises(ValueError, match="wg0"):
        followed.links.present(["wg0"])


def test_nothing_new_is_nothing_new(followed: Followed) -> None:
    assert followed.read() is False
    followed.place.ip("link set va alias something")
    assert followed.read() is False


def test_routes_that_are_not_local_wake_nobody(followed: Followed) -> None:
    followed.after("addr add 10.7.0.1/24 dev va", until=lambda: followed.has("10.7.0.1"))
    settle(followed)
    followed.place.ip("route add 198.51.100.0/24 via 10.7.0.2", "route add 203.0.113.0/24 dev va table 100")
    assert not select.select([followed.links.fd], [], [], 0)[0]  # what there is to be told is told before ip() returns
    followed.after("route add local 10.9.0.0/16 dev lo", until=lambda: followed.has("10.9.1.2"))


def dropped(place: PrivateNetns) -> int:
    """Notifications that no socket had room for."""
    lines = place.call(Path("/proc/thread-self/net/netlink").read_text).splitlines()[1:]
    return sum(int(line.split()[8]) for line in lines)


def test_what_was_missed_is_read_again(followed: Followed) -> None:
    index = followed.links.device_index("va")
    flood = [f"link set vb alias {'x' * 200}{number}" for number in range(3000)]
    followed.place.ip("link add lost type veth peer name tsol", *flood)
    assert dropped(followed.place) > 0
    followed.place.ip("link set va down", "link set va name late", "link del lost", "addr add 10.7.0.1/24 dev vb")
    assert followed.read()
    assert dict(followed.links.indexes()) == {n: i for i, n in followed.place.call(socket.if_nameindex)}
    assert followed.links.device_index("late") == index
    assert followed.links.present(["10.7.0.1"]) == {"10.7.0.1"}
    followed.after("addr add 10.7.0.3/24 dev vb", until=lambda: followed.has("10.7.0.3"))


def test_descriptor_serves_an_event_loop(place: PrivateNetns) -> None:
    """No thread, no loop of its own: all of it happens in the loop that is there."""
    threads = threading.active_count()

    async def follow() -> int:
        changed = asyncio.Event()

        def readable() -> None:
            if links.read():
                changed.set()

        with HostLinks() as links:
            asyncio.get_running_loop().add_reader(links.fd, readable)
            rename = subprocess.Popen(["ip", "link", "set", "vb", "name", "wg0"])  # asyncio's would bring a thread
            await asyncio.wait_for(changed.wait(), PATIENCE_S)
            rename.wait()
            links.read()
            asyncio.get_running_loop().remove_reader(links.fd)
            return links.device_index("wg0")

    place.ip("link set vb down")
    before = {name: index for index, name in place.call(socket.if_nameindex)}
    assert place.call(lambda: asyncio.run(follow())) == before["vb"]
    assert threading.active_count() == threads


def test_closed_links_are_refused(place: PrivateNetns) -> None:
    links = place.call(HostLinks)
    links.close()
    links.close()
    assert links.fd == -1
