# SPDX-License-Identifier: Apache-2.0
"""A TCP connection that a process in a cgroup holds. Must not know who ends it, nor why."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.sandbox import PrivateCgroup

PATIENCE_S = 60.0

# Connects from inside the cgroup, and sends when it is told to.
_CLIENT = """
import socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
made = socket.create_connection((sys.argv[2], int(sys.argv[3])))
print("up", flush=True)
sys.stdin.readline()
try:
    made.sendall(b"x")
    print("kept")
except OSError as error:
    print(type(error).__name__)
"""


@contextmanager
def held_flow(cgroup: PrivateCgroup, address: str, port: int) -> Iterator[Callable[[], str]]:
    """A flow that is there. What is yielded tells once what became of it: "kept", or the error that sending got."""
    argv = [sys.executable, "-c", _CLIENT, str(cgroup.path), address, str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "up\n"

            def fate() -> str:
                return client.communicate("go\n", timeout=PATIENCE_S)[0].strip()

            yield fate
        finally:
            client.kill()
