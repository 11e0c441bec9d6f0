# SPDX-License-Identifier: Apache-2.0
"""Sockets of the kernel itself, bound and connected by it in the course of a governed task's system call.

vxlan devices bind UDP sockets, MPTCP binds and connects TCP ones, a core dump connects a UNIX one. The same hooks judge
and rewrite them. (The kernel's own datagrams to an address would need a network file system or the like.)
"""

from __future__ import annotations

import errno
import faulthandler
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cgnetd.kernel.features import COSTS, Features
from support import sandbox
from support.governed import eventually
from support.mptcp import MPTCP, create_subflow
from support.rewriting import HEAD, Rewriting, rewriting
from support.sandbox import PrivateCgroup

POLICY = (
    HEAD
    + """\
  egress:
    - {name: v4, action: redirect, to: [192.168.1.254], ports: [4040], redirect: {to: "127.0.0.1:4444"}}
    - {name: v6, action: redirect, to: ["face:b00c:1234:5678::abcd"], ports: [6060], redirect: {to: "[::1]:4444"}}
    - {name: shut, action: deny, to: [192.168.1.253, "face:b00c::1"], errno: EHOSTUNREACH}
    - {name: core, action: redirect, unix: ["/run/**/asked"], redirect: {unix: "/run/CORE/given"}}
    - {name: no-core, action: deny, unix: ["/run/**/denied"]}
  bind:
    - {name: v4, action: rewrite, addresses: ["0.0.0.0", 192.168.1.254], ports: [4040],
       rewrite: {address: 127.0.0.1, port: 4444}}
    - {name: v6, action: rewrite, addresses: ["::", "face:b00c:1234:5678::abcd"], ports: [6060],
       rewrite: {address: "::1", port: 6666}}
    - {name: source, action: rewrite, addresses: [127.0.0.8, "::8"], rewrite: {address: [127.0.0.4, "::6"]}}
    - {name: shut, action: deny, ports: [4041, 6061], errno: EACCES}
"""
)
LISTENING = "0A"


class NoDeviceError(Exception):
    """Of a kind that this kernel was built without."""


@pytest.fixture
def _unix_hooks(kernel_features: Features) -> None:
    if not kernel_features.unix_hooks:
        pytest.skip(COSTS["unix_hooks"])


@pytest.fixture(scope="module")
def core_path() -> Iterator[Path]:
    """A directory for sockets; the kernel looks for it where the host's first process would."""
    made = sandbox.RUN / sandbox.fresh_name()
    made.mkdir(mode=0o700)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def app(objects: Path, core_path: Path) -> Iterator[Rewriting]:
    if shutil.which("ip") is None:
        pytest.skip("no ip command; install it: apt-get install iproute2")
    with rewriting(objects) as made:
        made.load(POLICY.replace("CORE", core_path.name))
        yield made


def ip(*words: str) -> str:
    """What ip(8) complains of, "" if it is content. NoDeviceError: the kernel has no such devices."""
    complaints = subprocess.run(["ip", *words], capture_output=True, text=True, check=False).stderr
    if "Unknown device type" in complaints:
        raise NoDeviceError(complaints)
    return complaints


def made(app: Rewriting, make: Callable[[], tuple[str, set[tuple[str, int]]]]) -> tuple[str, set[tuple[str, int]]]:
    """What `make` returns in the cgroup."""
    try:
        found: tuple[str, set[tuple[str, int]]] = app.call(make)
    except NoDeviceError as error:
        pytest.skip(f"{error}: needs CONFIG_VXLAN")
    return found


def bound(table: str) -> set[tuple[str, int]]:
    """Local addresses in /proc/net/`table`, of TCP the listening ones."""
    found = set()
    for line in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        words, port = local.split(":")
        if table.startswith("udp") or state == LISTENING:
            raw = b"".join(bytes.fromhex(word)[::-1] for word in re.findall(".{8}", words))
            family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
            found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found


@pytest.mark.parametrize(
    ("remote", "port", "table", "there"),
    [("127.0.0.9", 4040, "udp", ("127.0.0.1", 4444)), ("::9", 6060, "udp6", ("::1", 6666))],
)
def test_udp_socket_that_the_kernel_binds_is_rewritten(
    app: Rewriting, remote: str, port: int, table: str, there: tuple[str, int]
) -> None:
    def make() -> tuple[str, set[tuple[str, int]]]:
        complaints = ip("link", "add", "vx0", "type", "vxlan", "id", "1", "dstport", str(port), "remote", remote)
        return complaints + ip("link", "set", "vx0", "up"), bound(table)

    assert made(app, make) == ("", {there})


@pytest.mark.parametrize(("remote", "port", "table"), [("127.0.0.9", 4041, "udp"), ("::9", 6061, "udp6")])
def test_udp_socket_that_the_kernel_may_not_bind_is_denied(app: Rewriting, remote: str, port: int, table: str) -> None:
    def make() -> tuple[str, set[tuple[str, int]]]:
        ip("link", "add", "vx0", "type", "vxlan", "id", "1", "dstport", str(port), "remote", remote)
        return ip("link", "set", "vx0", "up"), bound(table)

    complaints, sockets = made(app, make)
    assert os.strerror(errno.EACCES) in complaints
    assert sockets == set()


needs_mptcp = pytest.mark.skipif(not Path("/proc/sys/net/mptcp/enabled").exists(), reason="needs CONFIG_MPTCP=y")


@needs_mptcp
@pytest.mark.parametrize(
    ("address", "port", "table", "there"),
    [
        ("192.168.1.254", 4040, "tcp", ("127.0.0.1", 4444)),
        ("face:b00c:1234:5678::abcd", 6060, "tcp6", ("::1", 6666)),
    ],
)
def test_tcp_socket_that_the_kernel_binds_is_rewritten(
    app: Rewriting, address: str, port: int, table: str, there: tuple[str, int]
) -> None:
    def make() -> tuple[str, set[tuple[str, int]]]:
        return ip("mptcp", "endpoint", "add", address, "port", str(port), "signal"), bound(table)

    assert app.call(make, address) == ("", {there})


@needs_mptcp
@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 4041), ("::1", 6061)])
def test_tcp_socket_that_the_kernel_may_not_bind_is_denied(app: Rewriting, address: str, port: int) -> None:
    found = app.call(lambda: ip("mptcp", "endpoint", "add", address, "port", str(port), "signal"))
    assert any(word in found for word in (os.strerror(errno.EACCES), f"error: -{errno.EACCES}"))


def subflow(local: str, remote: tuple[str, int]) -> tuple[int, str]:
    """Have the kernel open another subflow to ourselves: its errno, and where it came from."""
    here = "::1" if ":" in local else "127.0.0.1"
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    manager = Path("/proc/sys/net/mptcp/pm_type")
    subprocess.run(["ip", "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"], check=True)
    with socket.socket(family, socket.SOCK_STREAM, MPTCP) as server:
        server.bind((here, 4444))
        server.listen(4)
        manager.write_text("1")
        with socket.socket(family, socket.SOCK_STREAM, MPTCP) as client:
            manager.write_text("0")  # of the server's side: the kernel's own manager, which takes further subflows
            client.connect((here, 4444))
            with server.accept()[0] as accepted:
                for sender, receiver in ((client, accepted), (accepted, client)):
                    sender.sendall(b"x")
                    receiver.recv(1)
                failed = create_subflow(client, local, remote)
                return failed, "" if failed else eventually(lambda: _further(here, client), "another subflow")


def _further(here: str, client: socket.socket) -> str:
    """From where a connection to `here` comes that is not the first one."""
    table = "tcp6" if ":" in here else "tcp"
    first = client.getsockname()[0]
    for line in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if state == "01" and int(remote.split(":")[1], 16) == 4444:
            words = re.findall(".{8}", local.split(":")[0])
            raw = b"".join(bytes.fromhex(word)[::-1] for word in words)
            found = socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)
            if found != first:
                return found
    return ""


@needs_mptcp
@pytest.mark.parametrize(
    ("local", "remote", "source"),
    [
        ("127.0.0.8", ("192.168.1.254", 4040), "127.0.0.4"),
        ("::8", ("face:b00c:1234:5678::abcd", 6060), "::6"),
    ],
)
def test_tcp_socket_that_the_kernel_connects_is_redirected(
    app: Rewriting, local: str, remote: tuple[str, int], source: str
) -> None:
    """The kernel binds it to `local` first, which a bind rule turns into `source`."""
    assert app.call(lambda: subflow(local, remote), "::6") == (0, source)


@needs_mptcp
@pytest.mark.parametrize(("local", "remote"), [("127.0.0.9", ("192.168.1.253", 4444)), ("::6", ("face:b00c::1", 4444))])
def test_tcp_socket_that_the_kernel_may_not_connect_is_denied(
    app: Rewriting, local: str, remote: tuple[str, int]
) -> None:
    assert app.call(lambda: subflow(local, remote), "::6") == (errno.EHOSTUNREACH, "")


@contextmanager
def core_dumps_go_to(path: str) -> Iterator[None]:
    """Of the whole host: put right again at once. Skips before Linux 6.16, which knows no sockets there."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    try:
        with suppress(OSError):
            pattern.write_text("@relative")  # where sockets are known, their paths must be absolute
            pytest.skip("this kernel writes no core dumps to sockets (Linux 6.16)")
        pattern.write_text(f"@{path}")
        yield
    finally:
        pattern.write_text(before)


def dump() -> None:
    """Die in a way that leaves a core."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    faulthandler.disable()  # it is on purpose: no traceback
    os.kill(os.getpid(), signal.SIGABRT)


def dump_from(cgroup: PrivateCgroup, listener: socket.socket) -> tuple[bool, bytes]:
    """Whether a process of the cgroup left a core, and what came to the listener of it."""
    pid = os.fork()
    if not pid:
        try:
            cgroup.enter()
            dump()
        finally:
            os._exit(1)
    with os.fdopen(os.pidfd_open(pid), closefd=True) as ended:
        ready = select.select([listener, ended], [], [])[0]  # a core that comes holds its process until it is read
    came = b""
    if listener in ready:
        with listener.accept()[0] as connection:
            came = connection.recv(4)
    return os.WCOREDUMP(os.waitpid(pid, 0)[1]), came


@pytest.mark.usefixtures("_unix_hooks")
@pytest.mark.parametrize(
    ("asked", "listening", "found"),
    [
        ("asked", "given", (True, b"\x7fELF")),
        ("given", "given", (True, b"\x7fELF")),
        ("denied", "denied", (False, b"")),
    ],
)
def test_unix_socket_that_the_kernel_connects_is_judged_and_redirected(
    app: Rewriting, core_path: Path, asked: str, listening: str, found: tuple[bool, bytes]
) -> None:
    place = core_path / listening
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(4)
        try:
            with core_dumps_go_to(str(core_path / asked)):
                assert dump_from(app.app, listener) == found
        finally:
            place.unlink()
