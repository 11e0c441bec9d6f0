# SPDX-License-Identifier: Apache-2.0
"""Rules on names of UNIX sockets, and what a redirected socket sees of its peer, on real sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cgnetd.datapath import abi
from cgnetd.datapath.compile import compile_image
from cgnetd.datapath.record import FlowRecord, decode
from cgnetd.kernel import features
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from support import sandbox
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.usefixtures("no_fd_leaks")

POLICIES = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: ["/app"]}}
  egress:
    - {{name: own, action: allow, unix: ["{at}/open/**", "@{at}/open*"]}}
    - {{name: moved, action: redirect, unix: ["{at}/asked*"], log: true, redirect: {{unix: "{at}/real"}}}}
    - {{name: opened, action: redirect, unix: ["{at}/via"], redirect: {{unix: "{at}/open/real"}}}}
    - {{name: abstract, action: redirect, unix: ["@{at}/asked"], redirect: {{unix: "@{at}/real"}}}}
    - {{name: gone, action: redirect, unix: ["{at}/gone"], redirect: {{unix: "{at}/nobody"}}}}
    - {{name: guarded, action: deny, unix: ["{at}/shut*"], errno: ECONNREFUSED}}
    - {{name: to-guarded, action: redirect, unix: ["{at}/trick*"], redirect: {{unix: "{at}/shut-too"}}}}
    - {{name: datagrams, action: deny, unix: ["{at}/half"], hooks: [sendmsg], errno: EACCES}}
    - {{name: rest, action: deny, unix: ["{at}/**", "@{at}/*"], errno: EHOSTUNREACH}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: tried}}
spec:
  subject: {{cgroups: ["/tried"]}}
  mode: audit
  egress: [{{name: all, action: deny, unix: [any]}}]
"""


class Place(NamedTuple):
    enforcement: Enforcement
    app: PrivateCgroup
    free: PrivateCgroup
    directory: Path

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def abstract(self, name: str) -> bytes:
        return b"\0" + self.path(name).encode()


def clean(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def governed(objects: Path) -> Iterator[Place]:
    """The policies in force on names below a directory of its own, which is short: a name has 108 bytes."""
    if "unix_hooks" in features.probe().missing():
        pytest.skip(features.COSTS["unix_hooks"])
    with sandbox.cgroup() as root, sandbox.bpffs_mount() as bpffs:
        for name in ("app", "tried", "free"):
            root.child(name)
        directory = bpffs.with_name(f"{root.path.name}-unix")
        text = POLICIES.format(at=directory)
        result = parse([Source("unix.yaml", text.encode())], read_set=lambda _: b"", find_user=lambda _: 0)
        assert result.policy_set, result.problems
        with Enforcement(root.path, bpffs / "cgnetd", objects) as enforcement:
            enforcement.load(compile_image(result.policy_set, default_action=Action.DENY, generation=1))
            yield Place(enforcement, root.child("app"), root.child("free"), directory)


@pytest.fixture
def place(governed: Place) -> Iterator[Place]:
    """With an empty directory but for `open`."""
    (governed.directory / "open").mkdir(parents=True)
    try:
        yield governed
    finally:
        clean(governed.directory)
        governed.directory.rmdir()


Name = str | bytes
KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM]


@contextlib.contextmanager
def server(name: Name, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """Made by the test itself, which nothing governs."""
    with socket.socket(socket.AF_UNIX, kind) as made:
        made.bind(name)
        if kind != socket.SOCK_DGRAM:
            made.listen()
        yield made


def connect(place: Place, name: Name, kind: int = socket.SOCK_STREAM, cgroup: str = "app") -> int:
    """0 or the errno of a connect() from inside a cgroup."""

    def call() -> int:
        with socket.socket(socket.AF_UNIX, kind) as made:
            return made.connect_ex(name)

    found: int = place.app.child(f"../{cgroup}").call(call)
    return found


def send(place: Place, name: Name) -> int:
    def call() -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            try:
                made.sendto(b"hello", name)
            except OSError as error:
                return error.errno or -1
        return 0

    found: int = place.app.call(call)
    return found


class Case(NamedTuple):
    name: str
    connect: int
    send: int


CASES = [
    Case("open/a", 0, 0),
    Case("open/deep/b", errno.ENOENT, errno.ENOENT),  # allowed, but there is none
    Case("shut", errno.ECONNREFUSED, errno.ECONNREFUSED),
    Case("other", errno.EHOSTUNREACH, errno.EHOSTUNREACH),
    Case("half", errno.EHOSTUNREACH, errno.EACCES),
    Case("trick", errno.ECONNREFUSED, errno.ECONNREFUSED),  # its target is denied before
    Case("gone", errno.ENOENT, errno.ENOENT),
    Case("open/../shut", errno.EPERM, errno.EPERM),  # could be any path: the first redirect denies
    Case("open//a", errno.EPERM, errno.EPERM),
    Case("./open/a", errno.EPERM, errno.EPERM),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_paths_are_judged_as_the_rules_say(place: Place, case: Case) -> None:
    with server(place.path("open/a"), socket.SOCK_DGRAM), server(place.path("shut"), socket.SOCK_DGRAM):
        assert connect(place, place.path(case.name), socket.SOCK_DGRAM) == case.connect
        assert send(place, place.path(case.name)) == case.send


def test_relative_path_could_be_any(place: Place) -> None:
    with server(place.path("open/a")):

        def call() -> int:
            os.chdir(place.directory)
            with socket.socket(socket.AF_UNIX) as made:
                return made.connect_ex("open/a")

        assert place.app.call(call) == errno.EPERM
        assert connect(place, place.path("open/a")) == 0


def test_abstract_names_are_judged_byte_by_byte(place: Place) -> None:
    with server(place.abstract("open\0\1")), server(place.abstract("openly")), server(place.abstract("else")):
        assert connect(place, place.abstract("open\0\1")) == 0
        assert connect(place, place.abstract("openly")) == 0
        assert connect(place, place.abstract("else")) == errno.EHOSTUNREACH
        assert connect(place, place.abstract("open\0\2")) == errno.ECONNREFUSED  # allowed, but there is none


def test_names_that_no_rule_speaks_of_are_allowed_whatever_the_default_action(place: Place) -> None:
    with server(f"{place.directory}.else") as other, server(place.path("shut")):
        try:
            assert connect(place, other.getsockname()) == 0
        finally:
            Path(other.getsockname()).unlink()
        assert connect(place, place.path("shut"), cgroup="free") == 0
        assert connect(place, place.path("shut"), cgroup="tried") == 0


def test_longest_names_are_judged_whole(place: Place) -> None:
    for prefix, answer in (("open/", 0), ("shut", errno.ECONNREFUSED)):
        path = place.path(prefix)
        path += "x" * (abi.UNIX_NAME_MAX - 1 - len(path))
        abstract = b"\0" + place.path(prefix.rstrip("/")).encode()
        abstract += b"x" * (abi.UNIX_NAME_MAX - len(abstract))
        with server(path), server(abstract):
            assert connect(place, path) == answer
            assert connect(place, abstract) == (answer and errno.EHOSTUNREACH)


# -- what a redirected socket sees


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_abstract", [False, True], ids=["path", "abstract"])
def test_redirected_socket_reaches_the_target_and_sees_what_it_asked_for(
    place: Place, kind: int, is_abstract: bool
) -> None:
    asked, real = (place.abstract(n) if is_abstract else place.path(n) for n in ("asked", "real"))

    def call() -> object:
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(server(real, kind))
            place.app.enter()
            client = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            client.connect(asked)
            client.send(b"hello")
            accepted = made if kind == socket.SOCK_DGRAM else stack.enter_context(made.accept()[0])
            return accepted.recv(16), client.getpeername()

    assert place.free.call(call) == (b"hello", asked)


def echo(made: socket.socket) -> int:
    """A process that sends every datagram back. The caller ends it."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            while True:
                data, sender = made.recvfrom(64)
                made.sendto(data, sender)
        os._exit(0)
    return child


def exchange(place: Place, real: Name, client: Callable[[socket.socket], object]) -> object:
    """What `client` returns of a bound datagram socket of the cgroup, with an echo server at `real`."""

    def call() -> object:
        with server(real, socket.SOCK_DGRAM) as made:
            child = echo(made)
            try:
                place.app.enter()
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
                    bound.bind(place.path("client"))
                    bound.settimeout(5)
                    return client(bound)
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)

    return place.free.call(call)


def test_datagrams_come_back_from_where_they_were_sent(place: Place) -> None:
    asked, real = place.path("asked-1"), place.path("real")

    def client(bound: socket.socket) -> list[object]:
        found: list[object] = []
        for name in (asked, place.path("asked-2"), asked):
            bound.sendto(b"x", name)
            found.append(bound.recvfrom(16)[1])
        return found

    assert exchange(place, real, client) == [asked, place.path("asked-2"), asked]


def test_socket_that_turns_to_the_target_itself_sees_the_target(place: Place) -> None:
    via, real = place.path("via"), place.path("open/real")

    def client(bound: socket.socket) -> list[object]:
        found: list[object] = []
        for name in (via, real, via):
            bound.sendto(b"x", name)
            found.append(bound.recvfrom(16)[1])
        for name in (real, via, real):
            bound.connect(name)
            found.append(bound.getpeername())
            bound.send(b"x")
            found.append(bound.recvfrom(16)[1])
        return found

    assert exchange(place, real, client) == [via, real, via, real, real, via, via, real, real]


def test_each_of_many_connected_datagram_sockets_sees_its_own_peer(place: Place) -> None:
    names = [place.path(f"asked-{n}") for n in range(8)]

    def call() -> object:
        with contextlib.ExitStack() as stack:
            stack.enter_context(server(place.path("real"), socket.SOCK_DGRAM))
            place.app.enter()
            made = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in names]
            for one, name in zip(made, names, strict=True):
                one.connect(name)
            return [one.getpeername() for one in made]

    assert place.free.call(call) == names


def test_other_side_sees_the_truth(place: Place) -> None:
    with server(place.path("real")) as made:

        def call() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.bind(place.path("client"))
                client.connect(place.path("asked"))

        place.app.call(call)
        with made.accept()[0] as accepted:
            assert accepted.getpeername() == place.path("client")
            assert accepted.getsockname() == place.path("real")


# -- what it leaves


def test_redirect_that_logs_makes_an_event_with_the_name_that_was_asked_for(place: Place) -> None:
    records: dict[bytes, FlowRecord] = {}

    def note(data: bytes) -> None:
        record = decode(data)
        assert isinstance(record, FlowRecord)
        records[record.name] = record

    with server(place.path("real")):
        assert connect(place, place.path("asked-once")) == 0
    assert connect(place, place.path("trick-once")) == errno.ECONNREFUSED
    with place.enforcement.store.ring(note) as ring:
        ring.consume()
    refs = place.enforcement.image.index.refs
    moved, denied = (records[place.path(name).encode()] for name in ("asked-once", "trick-once"))
    assert (refs[moved.rule_id].rule, moved.rewritten, moved.denied) == ("moved", True, False)
    assert (refs[denied.rule_id].rule, denied.rewritten, denied.denied) == ("guarded", False, True)
    assert (moved.family, moved.hook, moved.cgroup_id) == (abi.FAMILY_UNIX, abi.HOOK_CONNECT, place.app.id)
