# SPDX-License-Identifier: Apache-2.0
"""The host's network devices and addresses, followed only while something in force speaks of them.

Must not know what speaks of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cgnetd.kernel.netlink import HostLinks

_NO_DEVICES: Mapping[str, int] = MappingProxyType({})


class Host:
    """Devices by name and local addresses as text. Nothing is followed before `want(True)`. Needs closing."""

    def __init__(self) -> None:
        self._links: HostLinks | None = None

    def want(self, wanted: bool) -> None:
        """Begin to follow, or stop. KernelError if the kernel does not tell."""
        if wanted and self._links is None:
            self._links = HostLinks()
        elif not wanted:
            self.close()

    @property
    def links(self) -> HostLinks | None:
        """What is followed; its `fd` is readable when something changed."""
        return self._links

    def read(self) -> None:
        """Take in what changed. KernelError."""
        if self._links is not None:
            self._links.read()

    def devices(self) -> Mapping[str, int]:
        """Index by name."""
        return self._links.indexes() if self._links is not None else _NO_DEVICES

    def present(self, addresses: Iterable[str]) -> frozenset[str]:
        """Those of these addresses that are the host's own."""
        return self._links.present(addresses) if self._links is not None else frozenset()

    def close(self) -> None:
        if self._links is not None:
            self._links.close()
        self._links = None
