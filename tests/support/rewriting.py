# SPDX-License-Identifier: Apache-2.0
"""What tests of rewritten sockets share: policies in force on one cgroup, and a network of one process's own.

Must not know what is rewritten, or what a test expects.
"""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.record import FlowRecord, decode
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import libc, sandbox
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

_TIMEOUT = struct.pack("=qq", 30, 0)  # struct timeval
_STREAM, _DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
_numbers = itertools.count(1)

HEAD = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: app}
spec:
  subject: {cgroups: [/app]}
"""


class Rewriting:
    """Policies in force below a private cgroup, and calls made in its child `app`."""

    def __init__(self, enforcement: Enforcement, tree: PrivateCgroup) -> None:
        self.enforcement = enforcement
        self.tree = tree
        self.app = tree.child("app")
        enforcement.store.set_window(1)  # an event a call
        self._events: list[bytes] = []
        self._ring = enforcement.store.ring(self._events.append)

    def close(self) -> None:
        self._ring.close()

    def load(self, text: str, default: Action = Action.ALLOW) -> None:
        """Put policies in force. AssertionError with every problem of the text."""
        result = parse([Source("test.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
        assert result.policy_set, [str(problem) for problem in result.problems]
        image = compile_image(result.policy_set, default_action=default, generation=next(_numbers))
        self.enforcement.load(image)

    def call(self, function: Callable[[], Any], *addresses: str) -> Any:
        """The result of `function` in the cgroup and a network namespace of its own, whose loopback has `addresses`."""

        def inside() -> Any:
            own_network(*addresses)
            return function()

        return self.app.call(inside)

    def call_reloading(self, function: Callable[[Callable[[], None]], Any], text: str) -> Any:
        """As `call`, of a function that is given another one: that puts the policies of `text` in force."""
        asking, asked = socket.socketpair()

        def reload() -> None:
            asking.send(b"?")
            assert asking.recv(1) == b"!"

        def answer() -> None:
            if asked.recv(1):
                self.load(text)
                asked.send(b"!")

        with asking, asked, ThreadPoolExecutor(max_workers=1) as one:
            answered = one.submit(answer)
            try:
                return self.call(lambda: function(reload))
            finally:
                asking.shutdown(socket.SHUT_WR)
                answered.result()

    def count(self, rule: str) -> int:
        """How often a rule of the generation in force decided."""
        with self.enforcement.slot() as slot:
            totals = slot.totals()
        refs = self.enforcement.image.index.refs
        return sum(totals[ref.rule_id * abi.COUNT_KINDS] for ref in refs if ref.rule == rule)

    def records(self) -> list[FlowRecord]:
        """The events since the last time, in order."""
        self._ring.consume()
        found, self._events[:] = [decode(event) for event in self._events], []
        return [record for record in found if isinstance(record, FlowRecord)]


@contextmanager
def rewriting(objects: Path) -> Iterator[Rewriting]:
    with (
        sandbox.cgroup() as tree,
        sandbox.bpffs_mount() as bpffs,
        Enforcement(tree.path, bpffs / "cgnetd", objects) as enforcement,
        closing(Rewriting(enforcement, tree)) as made,
    ):
        yield made


def own_network(*addresses: str) -> None:
    """Leave the network namespace for a new one. For children of the test process only."""
    libc.unshare(libc.CLONE_NEWNET)
    lines = ["link set lo up"]
    # Without nodad the address is tentative, and cannot be used, until a worker of the kernel has looked at it.
    lines += [f"addr add {a}/128 dev lo nodad" if ":" in a else f"addr add {a}/32 dev lo" for a in addresses]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def open_socket(host: str, kind: int, protocol: int = 0) -> socket.socket:
    """Of the address's family, and dual-stack if that is IPv6; it blocks, but not for long."""
    made = socket.socket(family_of(host), kind, protocol)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        made.setsockopt(socket.SOL_SOCKET, option, _TIMEOUT)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return made


def listener(host: str, port: int, protocol: int = 0) -> socket.socket:
    made = open_socket(host, _STREAM, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(16)
    return made


def receiver(host: str, port: int) -> socket.socket:
    made = open_socket(host, _DGRAM)
    made.bind((host, port))
    return made


def errno_of(call: Callable[[], Any]) -> int:
    """0, or the errno that the call raises."""
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0
