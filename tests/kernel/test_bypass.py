# SPDX-License-Identifier: Apache-2.0
"""Ways around a policy that need an order of events, not just a call. Numbers are rows of tests/cases/README.md."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf import AttachType, Link, Program, ProgType, instruction
from support import libc
from support.enforce import Enforcement
from support.sandbox import PrivateCgroup
from support.uring import Ring

POLICY = b"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: strict}
spec:
  subject: {cgroups: ["/strict", "/thread"]}
  egress: [{name: shut, action: deny, to: [127.0.0.2], errno: EACCES}]
"""
DENIED, ALLOWED, PORT = "127.0.0.2", "127.0.0.3", 9
MOV_R0, EXIT = 0xB7, 0x95
ALLOW_OVERRIDE, ALLOW_MULTI = 1, 2


def image() -> Image:
    result = parse([Source("bypass.yaml", POLICY)], read_set=lambda _: b"", find_user=lambda _: 0)
    assert result.policy_set
    return compile_image(result.policy_set, default_action=Action.ALLOW, generation=1)


@pytest.fixture
def strict(private_cgroup: PrivateCgroup) -> PrivateCgroup:
    return private_cgroup.child("strict")


@pytest.fixture
def enforcement(
    private_cgroup: PrivateCgroup, strict: PrivateCgroup, pin_dir: Path, objects: Path
) -> Iterator[Enforcement]:
    """Programs and maps are there, nothing is in force yet."""
    with Enforcement(private_cgroup.path, pin_dir, objects) as made:
        yield made


def send(sock: socket.socket, host: str) -> int:
    """0, or the errno of sending a datagram or connecting to `host`."""
    if sock.type == socket.SOCK_STREAM:
        return sock.connect_ex((host, PORT))
    try:
        sock.sendto(b"x", (host, PORT))
    except OSError as error:
        return error.errno or -1
    return 0


def made_in(cgroup: PrivateCgroup, kind: socket.SocketKind) -> socket.socket:
    """A socket that a process in the cgroup made and sent to us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def make() -> None:
        with socket.socket(socket.AF_INET, kind) as sock:
            socket.send_fds(theirs, [b"x"], [sock.fileno()])

    with ours, theirs:
        cgroup.call(make)
        return socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])


def fresh_send(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return send(sock, host)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_socket_made_before_the_programs_is_judged(
    enforcement: Enforcement, strict: PrivateCgroup, kind: socket.SocketKind
) -> None:
    """B42."""
    with made_in(strict, kind) as old:
        before = strict.call(lambda: send(old, DENIED))
        enforcement.load(image())
        assert before in (0, errno.ECONNREFUSED)
        assert strict.call(lambda: send(old, DENIED)) == errno.EACCES
        assert send(old, DENIED) == errno.EACCES  # and from outside the managed tree, by its own cgroup


def test_ring_made_outside_does_not_hide_the_caller(enforcement: Enforcement, strict: PrivateCgroup) -> None:
    """B17: without a polling thread the submitter's cgroup counts."""
    enforcement.load(image())
    address = libc.sockaddr(DENIED, PORT)

    def submit() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return ring.connect(sock.fileno(), address)

    with Ring() as ring:
        assert strict.call(submit) == -errno.EACCES


def test_connection_that_came_in_is_not_egress(enforcement: Enforcement, strict: PrivateCgroup) -> None:
    """B43: a listener from outside, accepted inside: data flows, and new connections are judged as ever."""
    enforcement.load(image())
    with socket.create_server((DENIED, 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())

        def serve() -> tuple[bytes, int]:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"hello")
                return accepted.recv(16), fresh_send(DENIED)

        client.sendall(b"request")
        assert strict.call(serve) == (b"request", errno.EACCES)
        assert client.recv(16) == b"hello"


def test_unix_socket_is_no_business_of_a_policy(
    enforcement: Enforcement, strict: PrivateCgroup, tmp_path: Path
) -> None:
    """B44."""
    enforcement.load(image())
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                return client.recv(16)

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"hello")

        answering = threading.Thread(target=answer)
        answering.start()
        assert strict.call(talk) == b"hello"
        answering.join()


def test_socket_of_a_removed_cgroup_is_judged_as_its_ancestor(enforcement: Enforcement, strict: PrivateCgroup) -> None:
    """B48."""
    enforcement.load(image())
    child = strict.child("gone")
    with made_in(child, socket.SOCK_DGRAM) as orphan:
        assert send(orphan, DENIED) == errno.EACCES
        child.path.rmdir()
        assert send(orphan, DENIED) == errno.EACCES
        assert send(orphan, ALLOWED) == 0


def test_thread_in_a_threaded_cgroup_is_judged_by_it(
    enforcement: Enforcement, private_cgroup: PrivateCgroup, strict: PrivateCgroup
) -> None:
    """B54."""
    enforcement.load(image())
    strict.path.rmdir()
    threaded = private_cgroup.child("thread")
    (threaded.path / "cgroup.type").write_text("threaded")

    def run() -> tuple[int, int]:
        found: list[int] = []

        def inside() -> None:
            (threaded.path / "cgroup.threads").write_text(str(threading.get_native_id()))
            found.append(fresh_send(DENIED))

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        return found[0], fresh_send(DENIED)

    assert private_cgroup.call(run) == (errno.EACCES, 0)


def constant_program(value: int) -> Program:
    """A connect4 program that only returns `value`."""
    code = [instruction(MOV_R0, immediate=value), instruction(EXIT)]
    return Program.from_instructions(ProgType.CGROUP_SOCK_ADDR, code, attach_type=AttachType.CGROUP_INET4_CONNECT)


def legacy_attach(program: Program, cgroup: PrivateCgroup, flags: int) -> None:
    """The way without a link; the program goes with the cgroup."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    fd = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libbpf.bpf_prog_attach(program.fd, fd, int(AttachType.CGROUP_INET4_CONNECT), flags):
            raise OSError(ctypes.get_errno(), "bpf_prog_attach")
    finally:
        os.close(fd)


def dial(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.connect_ex((host, PORT))


@pytest.mark.parametrize("flags", [ALLOW_OVERRIDE, ALLOW_MULTI])
def test_program_of_somebody_else_below_does_not_lift_a_deny(
    enforcement: Enforcement, strict: PrivateCgroup, flags: int
) -> None:
    """B56."""
    enforcement.load(image())
    with constant_program(1) as allowing:
        legacy_attach(allowing, strict, flags)
        assert strict.call(lambda: dial(DENIED)) == errno.EACCES
        assert strict.call(lambda: dial(ALLOWED)) == 0


def test_deny_of_somebody_else_is_not_lifted(enforcement: Enforcement, strict: PrivateCgroup) -> None:
    """B56, the other way round."""
    enforcement.load(image())
    fd = os.open(strict.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with constant_program(0) as denying, Link.attach_cgroup(denying, fd, AttachType.CGROUP_INET4_CONNECT):
            assert strict.call(lambda: dial(ALLOWED)) == errno.EPERM
    finally:
        os.close(fd)
