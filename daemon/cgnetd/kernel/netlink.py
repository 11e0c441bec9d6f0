# SPDX-License-Identifier: Apache-2.0
"""The devices and local addresses of this host's network namespace, followed live. Must not know who needs which.

Notifications tell of devices; of addresses they only say that something changed, and the table of local routes is read
again: not every way in which an address goes is told by a notification of its own.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import MappingProxyType, TracebackType
from typing import Self

from cgnetd.kernel import rtnl
from cgnetd.kernel.failure import kernel_error

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, RTMGRP_{IPV4,IPV6}_{IFADDR,ROUTE}
_ROOM_BYTES = 1 << 20
_MESSAGE_BYTES = 1 << 16
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33

# Classic BPF over a notification: routes that are not local ones (a router has a million of them) never get here.
_FILTER = (
    (0x28, 0, 0, 4),  # nlmsg_type, read as if it were of network byte order
    (0x15, 1, 0, socket.htons(24)),  # RTM_NEWROUTE
    (0x15, 0, 2, socket.htons(25)),  # RTM_DELROUTE, otherwise let it through
    (0x30, 0, 0, 16 + 7),  # rtm_type
    (0x15, 0, 1, 2),  # RTN_LOCAL
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)


class HostLinks:
    """Needs closing. Poll `fd`, and `read` when it is readable; between reads nothing changes."""

    def __init__(self) -> None:
        """Of the calling thread's network namespace. KernelError, PrivilegeError."""
        self._devices: dict[int, rtnl.Device] = {}
        self._local: frozenset[rtnl.Network] = frozenset()
        with ExitStack() as undo:
            self._socket = undo.enter_context(
                socket.socket(
                    socket.AF_NETLINK,
                    socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                    socket.NETLINK_ROUTE,
                )
            )
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
                _attach_filter(self._socket)
                self._socket.bind((0, _GROUPS))
                self._read_devices()
                self._read_local()
            except OSError as error:
                raise kernel_error("follow network devices", error) from error
            undo.pop_all()

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def read(self) -> bool:
        """Take in what was told since the last read, without waiting. Whether anything is another now. KernelError."""
        before = (self.indexes(), self._local)
        try:
            if self._drain():
                self._read_local()
        except OSError as error:
            raise kernel_error("follow network devices", error) from error
        return (self.indexes(), self._local) != before

    def device_index(self, name: str) -> int:
        """0 if there is no such device now."""
        return self.indexes().get(name, 0)

    def indexes(self) -> Mapping[str, int]:
        """Of all devices, by name."""
        return MappingProxyType({device.name: device.index for device in self._devices.values()})

    def addresses(self) -> frozenset[str]:
        """The single local addresses; `present` knows whole local networks (127.0.0.0/8) too."""
        return frozenset(str(network.network_address) for network in self._local if network.num_addresses == 1)

    def present(self, candidates: Iterable[str]) -> frozenset[str]:
        """Those of these addresses that sockets here can be bound to. ValueError for what is no address."""
        return frozenset(text for text in candidates if self._has(ipaddress.ip_address(text)))

    def _has(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address in network for network in self._local)

    def _drain(self) -> bool:
        """Whether the local addresses may have changed.

        The kernel says at once that it had no room for a notification, in front of older ones that still wait: what was
        missed can only be read again behind the last of them.
        """
        again = missed = False
        while True:
            try:
                data, _, flags, _ = self._socket.recvmsg(_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                missed = True
                continue
            missed = missed or bool(flags & socket.MSG_TRUNC)
            for event in () if missed else rtnl.events(data):
                again = self._take(event) or again
        if missed:
            self._read_devices()
        return again or missed

    def _take(self, event: rtnl.Event) -> bool:
        """Whether the local addresses may have changed."""
        device = event.device
        if device is None:
            return True
        known = self._devices.pop(device.index, None)
        if event.kind == rtnl.GONE_LINK:
            return True
        self._devices[device.index] = device
        return known is None or known.up != device.up

    def _read_devices(self) -> None:
        self._devices = {device.index: device for device in rtnl.devices()}

    def _read_local(self) -> None:
        self._local = rtnl.local_networks()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _attach_filter(channel: socket.socket) -> None:
    """struct sock_fprog points to the instructions; the kernel copies them."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(_FILTER), ctypes.addressof(buffer))
    channel.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
