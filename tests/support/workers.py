# SPDX-License-Identifier: Apache-2.0
"""What starts a worker for each connection, as the service manager does, or answers in the place of one.

Must not know what a test expects.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_MAIN = "import sys; from cgnetd.cli.daemon import main; sys.exit(main())"
# Not by sh, which may know single digits only. LISTEN_PID is the worker's own, and the connection its descriptor 3.
_SHELL = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{fd}'

Answer = Callable[[socket.socket], None]


class Activator:
    """The socket of a worker. Needs closing, which ends the workers too."""

    def __init__(self, directory: Path, name: str, *, object_dir: Path | None = None) -> None:
        self.name = name
        self.path = directory / f"{name}.sock"
        self.started: list[subprocess.Popen[bytes]] = []
        self.answers: list[Answer] = []  # each for one connection, the first one first; then real workers are started
        self._environment = dict(os.environ)
        if object_dir is not None:
            self._environment["CGNETD_OBJECT_DIR"] = str(object_dir)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                if self.answers:
                    self.answers.pop(0)(connection)
                else:
                    self.started.append(self.start(connection))

    def start(self, connection: socket.socket) -> subprocess.Popen[bytes]:
        """A worker that serves a connection."""
        fd = connection.fileno()
        command = ["bash", "-c", _SHELL.format(fd=fd), "bash", sys.executable, "-c", _MAIN, "--worker", self.name]
        return subprocess.Popen(command, pass_fds=[fd], env=self._environment, stderr=subprocess.PIPE)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        for worker in self.started:
            worker.kill()
            worker.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
