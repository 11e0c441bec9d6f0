# SPDX-License-Identifier: Apache-2.0
"""Servers that say who they are, to be backends of services. Must not know of services.

Each is a process of its own: a test that forks must have no threads.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

ADDRESS = "127.0.0.1"

# Answers every TCP connection and every datagram with a name, and keeps connections until the other end leaves.
_SERVER = """
import selectors, socket, sys
address, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
tcp = socket.create_server((address, port), backlog=64)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((address, tcp.getsockname()[1]))
print(tcp.getsockname()[1], flush=True)
waiting = selectors.DefaultSelector()
for made in (tcp, udp):
    waiting.register(made, selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        made = key.fileobj
        try:
            if made is tcp:
                connection = made.accept()[0]
                connection.sendall(name)
                waiting.register(connection, selectors.EVENT_READ)
            elif made is udp:
                made.sendto(name, made.recvfrom(64)[1])
            elif not made.recv(64):
                raise ConnectionError
        except OSError:
            if made is not tcp and made is not udp:
                waiting.unregister(made)
                made.close()
"""


class Backend:
    """A TCP and a UDP server on one loopback port, which answer with `name`. They can go and come back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the port of before if there was one."""
        argv = [sys.executable, "-c", _SERVER, ADDRESS, str(self.port), self.name]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        """Refuse connections, and answer no datagram."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
