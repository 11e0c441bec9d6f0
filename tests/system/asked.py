# SPDX-License-Identifier: Apache-2.0
"""A unit of a machine whose one process makes the calls that it is asked for, and tells what it got.

Runs inside the machine as a program, too: it must import nothing but the standard library. Must not know verdicts.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path

PROGRAM_PATH = "/run/asked.py"
SOCKET_PATH = "/run/asked.sock"
OK = "ok"


def make(call: str, address: str, port: int) -> str:
    """ "connect" and "send" by UDP, "bind" by TCP, IPv4: OK or the errno by name."""
    kind = socket.SOCK_STREAM if call == "bind" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as made:
        try:
            if call == "send":
                made.sendto(b"", (address, port))
            else:
                {"connect": made.connect, "bind": made.bind}[call]((address, port))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return OK


def ask(path: Path, call: str, address: str, port: int) -> str:
    """What the process that listens on a socket, here at `path`, got. OSError while it does not."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(path))
        asking.sendall(f"{call} {address} {port}\n".encode())
        return asking.makefile().readline().strip()


def answer() -> None:
    """Until it is ended."""
    Path(SOCKET_PATH).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(SOCKET_PATH)
        listening.listen()
        while True:
            asking, _ = listening.accept()
            with asking:
                call, address, port = asking.makefile().readline().split()
                asking.sendall(make(call, address, int(port)).encode() + b"\n")


if __name__ == "__main__":
    answer()
