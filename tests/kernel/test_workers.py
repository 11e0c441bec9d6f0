# SPDX-License-Identifier: Apache-2.0
"""Workers as processes, and what the daemon makes of those that fail, say nothing, or talk nonsense."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgnetd import __version__
from cgnetd.errors import CgnetdError
from cgnetd.service import sockets, worker
from cgnetd.service.health import Target
from cgnetd.service.probing import RemoteProber
from cgnetd.service.worker import PROBER, SOCKETS, WORKERS_VARIABLE, WorkerError
from support.workers import Activator, Answer

NOBODY = 65534
PATIENCE_S = 60.0


@pytest.fixture
def prober(tmp_path: Path) -> Iterator[Activator]:
    with Activator(tmp_path, PROBER) as made:
        yield made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def target(port: int) -> Target:
    return Target("127.0.0.1", port, 5 * 10**7, 10**9, 1, 1)


class Watcher:
    """A prober by a worker, and what it told."""

    def __init__(self, path: Path, **options: float) -> None:
        self.results: list[tuple[Target, str]] = []
        self.troubles: list[str] = []
        self.remote = RemoteProber(path, lambda *one: self.results.append(one), self.troubles.append, **options)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, (self.results, self.troubles)
            await asyncio.sleep(0.01)


def test_worker_probes_for_as_long_as_it_is_asked_to(prober: Activator, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    watcher = Watcher(prober.path)

    async def watch() -> None:
        watcher.remote.follow([target(port)])
        await watcher.until(lambda: watcher.results)
        listener.close()
        await watcher.until(lambda: (target(port), "Connection refused") in watcher.results)
        watcher.remote.follow([])

    asyncio.run(watch())
    assert watcher.results[0] == (target(port), "")
    assert set(watcher.troubles) == {""}
    assert prober.started[0].wait(PATIENCE_S) == 0
    assert len(prober.started) == 1


def test_worker_is_told_of_other_targets(prober: Activator, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    other = Target("127.0.0.1", port, 6 * 10**7, 10**9, 1, 1)
    watcher = Watcher(prober.path)

    async def watch() -> None:
        watcher.remote.follow([target(port)])
        await watcher.until(lambda: watcher.results)
        watcher.remote.follow([other])
        await watcher.until(lambda: (other, "") in watcher.results)
        watcher.results.clear()
        await watcher.until(lambda: len(watcher.results) > 3)
        await watcher.remote.close()

    asyncio.run(watch())
    assert set(watcher.results) == {(other, "")}
    assert len(prober.started) == 1


def says(*lines: bytes) -> Answer:
    """Whoever connects is told this, and left."""

    def answer(connection: socket.socket) -> None:
        for line in lines:
            connection.sendall(line)

    return answer


def insists(*lines: bytes) -> Answer:
    """Whoever connects is told this, and may leave."""

    def answer(connection: socket.socket) -> None:
        says(*lines)(connection)
        while connection.recv(4096):
            pass

    return answer


GREETING = worker.greeting(PROBER)
BAD_ANSWERS = {
    "gone": (says(), "it has ended"),
    "garbage": (says(b"\xff\xfe{]\n"), ""),
    "no object": (insists(b"[]\n"), "no JSON object"),
    "another version": (says(GREETING.replace(__version__.encode(), b"9.9")), "9.9"),
    "another worker": (says(worker.greeting(SOCKETS)), "sockets"),
    "gone after the greeting": (says(GREETING), "it has ended"),
    "half a line": (says(GREETING, b'{"probed":'), "it has ended"),
    "no result": (insists(GREETING, b'{"probed":["127.0.0.1",1,2,3,4],"error":""}\n'), "six values"),
    "a result of wrong types": (insists(GREETING, b'{"probed":["127.0.0.1","1",2,3,4,5],"error":""}\n'), "numbers"),
    "an error of a wrong type": (insists(GREETING, b'{"probed":["127.0.0.1",1,2,3,4,5],"error":1}\n'), "no result"),
    "silence": (insists(GREETING), "nothing within"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_worker_is_told_and_followed_by_another_one(name: str, prober: Activator, listener: socket.socket) -> None:
    wanted = target(listener.getsockname()[1])
    answer, words = BAD_ANSWERS[name]
    prober.answers.append(answer)
    watcher = Watcher(prober.path, retry_s=0.05, slack_s=2.0 if name == "silence" else 20.0)

    async def watch() -> None:
        watcher.remote.follow([wanted])
        await watcher.until(lambda: watcher.troubles)
        assert not watcher.results
        await watcher.until(lambda: watcher.results)
        await watcher.remote.close()

    asyncio.run(watch())
    assert words in watcher.troubles[0]
    assert "worker prober" in watcher.troubles[0]
    assert watcher.troubles[-1] == ""
    assert set(watcher.results) == {(wanted, "")}


def test_results_of_what_is_not_followed_are_no_results(prober: Activator) -> None:
    prober.answers.append(says(GREETING, b'{"probed":["10.0.0.1",1,2,3,4,5],"error":"dead"}\n'))
    watcher = Watcher(prober.path, retry_s=60.0)

    async def watch() -> None:
        watcher.remote.follow([target(9)])
        await watcher.until(lambda: any(watcher.troubles))
        await watcher.remote.close()

    asyncio.run(watch())
    assert watcher.results == []


def test_worker_that_is_not_there_is_no_dead_backend(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "prober.sock", retry_s=60.0)

    async def watch() -> None:
        watcher.remote.follow([target(9)])
        await watcher.until(lambda: watcher.troubles)
        await watcher.remote.close()

    asyncio.run(watch())
    assert "No such file or directory" in watcher.troubles[0]
    assert watcher.results == []


# Listens as somebody who is not root, until its input ends.
_FOREIGN = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
made.listen()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "foreign"
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    path = directory / "sockets.sock"
    argv = [sys.executable, "-c", _FOREIGN, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == b"up\n"
        yield path
        made.kill()


def test_socket_that_is_not_roots_is_no_workers(foreign: Path) -> None:
    with pytest.raises(WorkerError, match="not root's"):
        worker.ask(SOCKETS, foreign, {"congestion": "reno"}, PATIENCE_S)


def connected_as_nobody() -> tuple[socket.socket, socket.socket]:
    """A connection whose other end is not root's."""
    os.seteuid(NOBODY)
    try:
        return socket.socketpair(socket.AF_UNIX)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", worker.NAMES)
def test_worker_serves_root_alone(name: str, tmp_path: Path) -> None:
    mine, its = connected_as_nobody()
    with Activator(tmp_path, name) as activator, mine:
        with its:
            started = activator.start(its)
        assert mine.recv(4096) == b""
        _, said = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 4
    assert b"not root" in said


@pytest.mark.parametrize("name", worker.NAMES)
def test_worker_is_not_to_be_started_by_hand(name: str) -> None:
    argv = [sys.executable, "-c", "import sys; from cgnetd.cli.daemon import main; sys.exit(main())", "--worker", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, f"cgnetd-{name}.socket starts it" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"{}\n", b'{"pins":"/nowhere","close":[[1,2]]}\n', b'{"follow":[1]}\n']
)
@pytest.mark.parametrize("name", worker.NAMES)
def test_worker_ends_when_it_hears_nonsense(name: str, line: bytes, tmp_path: Path) -> None:
    mine, its = socket.socketpair(socket.AF_UNIX)
    with Activator(tmp_path, name) as activator, mine:
        with its:
            started = activator.start(its)
        with mine.makefile("rwb") as stream:
            assert worker.unpack(stream.readline()) == {"worker": name, "version": __version__}
            stream.write(line)
            stream.flush()
            assert stream.readline() == b""
        _, said = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 1
    assert b"cannot be understood" in said


def test_congestion_controls_are_known_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, str(tmp_path))
    with Activator(tmp_path, SOCKETS):
        assert sockets.has_congestion("reno")
        assert not sockets.has_congestion("nonesuch")
    with pytest.raises(WorkerError, match="ask worker sockets"):
        sockets.has_congestion("reno")


def test_flows_that_cannot_be_closed_are_told_why(tmp_path: Path) -> None:
    with Activator(tmp_path, SOCKETS) as activator, pytest.raises(CgnetdError, match="nowhere"):
        asyncio.run(sockets.have_closed(activator.path, tmp_path / "nowhere" / "pins", []))
