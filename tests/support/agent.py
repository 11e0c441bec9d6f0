# SPDX-License-Identifier: Apache-2.0
"""The process that makes the calls of one case file: alone in a network namespace, one child per call.

JSON lines on stdin and stdout: first the setting (addresses, listeners, servers), then one request a line, each
answered by one line. Stays outside the governed cgroups itself. Must not know policies.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

from cgnetd.kernel import netns
from support import calls, libc, servers, views

CALL_TIMEOUT_S = 30
KILLED = -1
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_NUMBER = struct.Struct("i")
_SYSCTLS = {
    "net/ipv4/ping_group_range": "0 2147483647",
    "net/ipv4/ip_local_port_range": "40000 40999",
    "net/ipv4/tcp_fastopen": "3",
    "net/ipv4/ip_unprivileged_port_start": "1024",
}


def main() -> int:
    setting = json.loads(sys.stdin.readline())
    keep = _enter(setting["addresses"], setting["listeners"])
    end = _serve(setting["servers"], setting["servers_cgroup"])
    print(json.dumps({"ready": len(keep), "netns": netns.cookie()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
    end()
    return 0


def _enter(addresses: list[str], listeners: list[list[Any]]) -> list[socket.socket]:
    """A fresh network namespace with `addresses` on its loopback device and a listener at each address and port."""
    libc.unshare(libc.CLONE_NEWNET)
    for name, value in _SYSCTLS.items():
        with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
            file.write(value)
    commands = ["link set lo up", "route add 224.0.0.0/4 dev lo", "route add ff00::/8 dev lo table local"]
    # An IPv6 address cannot be bound to as long as the kernel looks for duplicates of it.
    commands += [f"addr add {a}/128 dev lo nodad" if ":" in a else f"addr add {a}/32 dev lo" for a in addresses]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, stdout=subprocess.DEVNULL)
    return [_listener(host, port) for host, port in listeners]


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    address, _, scope = host.partition("%")
    listener.bind((address, port, 0, socket.if_nametoindex(scope)) if scope else (address, port))
    listener.listen(1024)
    return listener


def _serve(places: list[list[Any]], cgroup: str | None) -> Callable[[], None]:
    """Have a process of its own, in `cgroup` if any, answer at all `places`; returns what ends it.

    It also ends when this one is gone.
    """
    theirs, ours = os.pipe()
    ready, tell = os.pipe()

    def run() -> None:
        os.close(ours)
        if cgroup is not None:
            _join(cgroup)
        made = [servers.open_server(*place) for place in places]
        os.write(tell, b"!")
        servers.serve(made, theirs)

    pid = _fork(run)
    os.close(theirs)
    os.close(tell)
    if not os.read(ready, 1):
        raise RuntimeError("the servers could not be made")
    os.close(ready)

    def end() -> None:
        os.close(ours)
        os.waitpid(pid, 0)

    return end


def _answer(wire: dict[str, Any]) -> dict[str, Any]:
    """`errno` of the call (KILLED if the caller died), and what was `seen` of the socket if that is 0."""
    request = calls.Request(
        call=wire["call"],
        via=wire["via"],
        to=tuple(bytes.fromhex(a) for a in wire["to"]),
        first=bytes.fromhex(wire["first"]) if wire["first"] else None,
        source=bytes.fromhex(wire["source"]) if wire["source"] else None,
        options=frozenset(wire["options"]),
        device=wire["device"],
        pktinfo=wire["pktinfo"],
        reaches=bytes.fromhex(wire["reaches"]) if wire["reaches"] else None,
    )
    maker = None
    if wire["socket_cgroup"] and wire["passing"] != "moved":
        maker = _Maker(wire["socket_cgroup"], request.via)
    try:
        return _in_child(lambda: _perform(wire, request, maker))
    finally:
        if maker:
            maker.end()


class _Maker:
    """A process in a cgroup that has opened a socket, sent it as SCM_RIGHTS, and sleeps until `end`."""

    def __init__(self, cgroup: str, via: str) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.pid = _fork(lambda: _make(cgroup, via, theirs))
        theirs.close()

    def receive(self) -> tuple[int, int]:
        """The descriptor's number in the maker (or minus errno), and the one that was sent."""
        data, fds, _flags, _address = socket.recv_fds(self._channel, _NUMBER.size, 1)
        return _NUMBER.unpack(data)[0], fds[0] if fds else -1

    def end(self) -> None:
        self._channel.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _make(cgroup: str, via: str, channel: socket.socket) -> None:
    _join(cgroup)
    fd = calls.open_socket(via)
    socket.send_fds(channel, [_NUMBER.pack(fd)], [fd] if fd >= 0 else [])
    signal.pause()


def _fork(action: Callable[[], None]) -> int:
    """Run `action` in a child. It never returns into the parent's code, whatever it raises."""
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _in_child(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `action` returns in a child of its own; KILLED if it did not."""
    reader, writer = os.pipe()

    def run() -> None:
        signal.alarm(CALL_TIMEOUT_S)
        os.write(writer, json.dumps(action()).encode())

    pid = _fork(run)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        raw = answers.read()
    os.waitpid(pid, 0)
    answer: dict[str, Any] = json.loads(raw) if raw else {"errno": KILLED}
    return answer


def _perform(wire: dict[str, Any], request: calls.Request, maker: _Maker | None) -> dict[str, Any]:
    fd: int | None = None
    if wire["passing"] == "moved":
        _join(wire["socket_cgroup"])
        fd = calls.open_socket(request.via)
    _join(wire["cgroup"])
    if maker is not None:
        number, fd = maker.receive()
        if number < 0:
            return {"errno": -number}
        if wire["passing"] == "pidfd":
            fd = libc.take_fd(maker.pid, number)
    _isolate(wire["isolate"])
    seen: dict[str, str] = {}
    failed = calls.perform(request, fd, lambda made: seen.update(views.look(made, request)))
    return {"errno": failed, "seen": seen}


def _join(cgroup: str) -> None:
    with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")


def _isolate(kinds: list[str]) -> None:
    """Namespaces and identity the caller leaves for; a new network namespace gets its loopback device up."""
    if "cgroup" in kinds:
        libc.unshare(libc.CLONE_NEWCGROUP)
    if "nobody" in kinds:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    if "user" in kinds:
        libc.unshare(libc.CLONE_NEWUSER)
    if "net" in kinds:
        libc.unshare(libc.CLONE_NEWNET)
        _loopback_up()


def _loopback_up() -> None:
    """By hand: a program executed by an unmapped user would have lost its capabilities."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("=16sH14x", b"lo", _IFF_UP))


if __name__ == "__main__":
    sys.exit(main())
