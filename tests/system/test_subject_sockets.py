# SPDX-License-Identifier: Apache-2.0
"""Socket units as subjects, and services they start: who is asked when one unit makes a socket and another uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from beds.machine import Machine
from system.service import Service, eventually
from system.subjects import DENIED, DIAL, FREE, GOVERNED, Callers, governing, journal_tells, policy

BINDABLE, UNBINDABLE = 7003, 7004
PLACES = ("TCP4:127.0.0.1", "TCP6:[::1]")
POLICIES = (
    policy("per-connection", '{units: ["each@*.service"]}')
    + policy("one-for-all", "{units: [all.service]}")
    + policy("replies", "{units: [shut-udp.socket]}")
    + policy("commands", "{units: [commands.socket]}")
    + f"""\
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: listeners}}
spec:
  subject: {{units: ["bound-*.socket"]}}
  bind:
    - {{name: these, action: allow, ports: [{BINDABLE}]}}
    - {{name: rest, action: deny, errno: EACCES}}
"""
)
# Answers one datagram on each socket that it was given, and tells how that went.
ANSWER = """\
import errno, select, socket
for left in (2, 1):
    if left == 2:
        sockets = [socket.socket(fileno=3), socket.socket(fileno=4)]
    ready = select.select(sockets, [], [])[0][0]
    words, peer = ready.recvfrom(64)
    try:
        ready.sendto(words, peer)
        print("sent", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
    sockets.remove(ready)
"""


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[Service]:
    with governing(machine, POLICIES) as made:
        yield made


@pytest.fixture(scope="module")
def callers(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with Callers.on(service.machine, tmp_path_factory.mktemp("native")) as made:
        yield made


def listen(callers: Callers, name: str, port: int, *lines: str, kind: str = "ListenStream") -> None:
    """Make and start a socket unit on both addresses of loopback."""
    places = (f"{kind}={address}:{port}" for address in ("127.0.0.1", "[::1]"))
    callers.write(name, "\n".join(("[Socket]", "BindIPv6Only=ipv6-only", *places, *lines, "")))
    callers.machine.run("systemctl", "start", name)


def say(callers: Callers, place: str, port: int) -> None:
    callers.machine.run("socat", "-u", "-", f"{place}:{port}", input="hello\n", stdin=None)


@pytest.mark.parametrize(("name", "port", "expected"), [("each", 7001, GOVERNED), ("reach", 7011, FREE)])
def test_service_of_each_connection_is_governed(callers: Callers, name: str, port: int, expected: str) -> None:
    """Accept=yes: an instance a connection, whose name nobody can foretell."""
    callers.once(f"{name}@.service", callers.output(name))
    listen(callers, f"{name}.socket", port, "Accept=yes")
    for before, place in enumerate(PLACES):
        say(callers, place, port)
        assert callers.next(name, before) == expected
    if expected == GOVERNED:

        def units() -> set[str]:
            told = journal_tells(callers.machine, "CGNETD_POLICY=per-connection")
            return {one["OBJECT_SYSTEMD_UNIT"] for one in told}

        eventually(lambda: len(units()) == len(PLACES), "denials of each connection's service")
        assert all(unit.startswith("each@") for unit in units())


@pytest.mark.parametrize(("name", "port", "expected"), [("all", 7005, GOVERNED), ("fall", 7006, FREE)])
def test_service_of_all_connections_is_governed(callers: Callers, name: str, port: int, expected: str) -> None:
    callers.resident(f"{name}.service")
    listen(callers, f"{name}.socket", port)
    say(callers, PLACES[0], port)
    assert callers.next(f"{name}.service", 0) == expected


@pytest.mark.parametrize(("name", "port", "expected"), [("shut-udp", 7007, DENIED), ("open-udp", 7008, "sent")])
def test_socket_unit_has_a_say_in_what_its_service_sends(callers: Callers, name: str, port: int, expected: str) -> None:
    """The service is governed by nothing, but the socket that it answers on was made in the socket unit's cgroup."""
    callers.machine.write("/run/answer.py", ANSWER)
    callers.once(f"{name}.service", start="/usr/bin/python3 /run/answer.py")
    listen(callers, f"{name}.socket", port, kind="ListenDatagram")
    for place in PLACES:
        say(callers, place.replace("TCP", "UDP"), port)
    told = eventually(lambda: callers.lines(f"{name}.service")[1:] and callers.lines(f"{name}.service"), "both answers")
    assert told == [expected, expected]


@pytest.mark.parametrize("kind", ["ListenStream", "ListenDatagram"])
def test_what_a_socket_unit_binds_is_governed(callers: Callers, kind: str) -> None:
    callers.once("bound-ok.service")
    callers.once("bound-no.service")
    listen(callers, "bound-ok.socket", BINDABLE, kind=kind)
    callers.machine.run("systemctl", "stop", "bound-ok.socket")
    for address in ("127.0.0.1", "[::1]"):
        callers.write("bound-no.socket", f"[Socket]\n{kind}={address}:{UNBINDABLE}\n")
        assert callers.machine.try_run("systemctl", "start", "bound-no.socket").returncode != 0


def test_denied_bind_of_a_socket_unit_is_in_its_journal(callers: Callers) -> None:
    callers.once("bound-told.service")
    with pytest.raises(AssertionError, match="bound-told"):
        listen(callers, "bound-told.socket", UNBINDABLE)

    def denials() -> list[dict[str, Any]]:
        journal = callers.machine.journal("--unit=bound-told.socket")
        return [one for one in journal if one.get("CGNETD_VERDICT") == "deny"]

    told = eventually(denials, "the denied bind in the journal")  # the daemon tells of it a moment later
    assert {(one["CGNETD_HOOK"], one["CGNETD_LOCAL_PORT"]) for one in told} == {("bind", str(UNBINDABLE))}


def test_commands_of_a_socket_unit_are_governed(callers: Callers) -> None:
    callers.once("commands.service")
    tell = f"ExecStartPre=sh -c '{DIAL} >> /var/lib/subjects/commands'"
    listen(callers, "commands.socket", 7009, tell)
    assert callers.lines("commands") == [GOVERNED]
    journal_tells(callers.machine, "--unit=commands.socket")
