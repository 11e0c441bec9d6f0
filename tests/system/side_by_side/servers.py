# SPDX-License-Identifier: Apache-2.0
"""Who answers the calls: echo by TCP and UDP on every address, and a bystander that connects to whoever asks, or gives
away a socket.

Runs inside the machine as a program: standard library only. `servers.py [PORT...]`, echo on these ports; a bystander if
BYSTANDER, a path, is in the environment. Governed by nobody.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 5.0


def _socket(kind: int, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    return made


def streams(listening: socket.socket) -> None:
    """Answers, or calls, one after the other in threads of their own."""
    while True:
        made, _ = listening.accept()
        threading.Thread(target=_echo, args=(made,), daemon=True).start()


def _echo(made: socket.socket) -> None:
    with made, suppress(OSError):
        made.settimeout(PATIENCE_S)
        while heard := made.recv(64):
            made.sendall(heard)


def datagrams(made: socket.socket) -> None:
    """Answers come from where the question went: filters look at their source."""
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    while True:
        heard, [(level, kind, place)], _, sender = made.recvmsg(64, 64)
        with suppress(OSError):
            made.sendmsg([heard], [(level, kind, place[:16] + bytes(4))], 0, sender)


def bystander(path: str) -> None:
    Path(path).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    _start(_help, listening)


def _help(listening: socket.socket) -> None:
    while True:
        asking, _ = listening.accept()
        threading.Thread(target=_call_back, args=(asking,), daemon=True).start()


def _asked(transport: str) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM)


def _call_back(asking: socket.socket) -> None:
    with asking, suppress(OSError):
        what, *words = asking.makefile().readline().split()
        if what == "connect":
            socket.create_connection((words[0], int(words[1])), PATIENCE_S).close()
        else:
            with _asked(words[0]) as made:
                socket.send_fds(asking, [b"x"], [made.fileno()])


def _start(target: Callable[[socket.socket], None], made: socket.socket) -> None:
    threading.Thread(target=target, args=(made,), daemon=True).start()


def main() -> None:
    for port in map(int, sys.argv[1:]):
        listening = _socket(socket.SOCK_STREAM, port)
        with suppress(OSError):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        listening.listen(64)
        _start(streams, listening)
        _start(datagrams, _socket(socket.SOCK_DGRAM, port))
    if "BYSTANDER" in os.environ:
        bystander(os.environ["BYSTANDER"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    threading.Event().wait()


if __name__ == "__main__":
    main()
