# SPDX-License-Identifier: Apache-2.0
"""systemd's own network settings, and a BPFProgram=, on a unit that policies govern: both hold, neither takes the other
away, and `cgnetctl status` shows them with their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from beds.machine import Machine
from beds.trees import VENV
from support.foreign import Flags, Says, foreign
from system import asked
from system.service import UNIT, Service, eventually

OPEN, SHUT = 1111, 2222
NAME = "beside.service"
ALONE = "beside-without-cgnetd.service"
CGROUP = f"/system.slice/{NAME}"
PINNED = "/sys/fs/bpf/theirs"
CONFLICT = "d9ddc35e68ab46a08b6d2d5dc86f2a88"  # see docs/events.md
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: beside}}
spec:
  subject: {{units: [{NAME}]}}
  egress:
    - {{name: open, action: allow, ports: [{OPEN}]}}
    - {{name: rest, action: deny, errno: EHOSTUNREACH}}
  bind:
    - {{name: ours, action: deny, ports: [9000], errno: EACCES}}
"""
# A program that denies every connect() by IPv4, as if somebody had made it for this unit.
PIN = f"""\
from pybpf import *
code = [instruction(0xB7, immediate=0), instruction(0x95)]
kind, hook = ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT
Program.from_instructions(kind, code, name="theirs", attach_type=hook).pin("{PINNED}")
"""
SETTINGS = (
    "IPAddressDeny=127.0.0.9",
    "SocketBindDeny=ipv4:tcp:8000-8100",
    f"BPFProgram=connect4:{PINNED}",
)
CALLS = {
    "ours lets it, theirs too": ("send", "127.0.0.1", OPEN),
    "ours denies": ("send", "127.0.0.1", SHUT),
    "IPAddressDeny= denies": ("send", "127.0.0.9", OPEN),
    "BPFProgram= denies": ("connect", "127.0.0.1", OPEN),
    "ours denies a bind": ("bind", "127.0.0.1", 9000),
    "SocketBindDeny= denies": ("bind", "127.0.0.1", 8050),
    "neither denies a bind": ("bind", "127.0.0.1", 9500),
}


class Beside:
    """The unit, and what its process gets."""

    def __init__(self, machine: Machine, name: str = NAME) -> None:
        self.machine = machine
        self.name = name
        self.has_framework = "+BPF_FRAMEWORK" in machine.run("systemctl", "--version")

    def write(self, *settings: str) -> None:
        lines = ("[Service]", *settings, f"ExecStart=/usr/bin/python3 {asked.PROGRAM_PATH}", "")
        self.machine.write(f"/run/systemd/system/{self.name}", "\n".join(lines))
        self.machine.run("systemctl", "daemon-reload")

    def restart(self) -> None:
        self.machine.run("rm", "-f", asked.SOCKET_PATH)
        self.machine.run("systemctl", "restart", self.name)
        eventually(self._answers, "an answer of the unit")

    def _answers(self) -> bool:
        with suppress(OSError):
            return bool(self.ask("bind", "127.0.0.1", 0))
        return False

    def ask(self, *call: Any) -> str:
        return asked.ask(self.machine.path(asked.SOCKET_PATH), *call)

    def verdicts(self) -> dict[str, str]:
        return {what: self.ask(*call) for what, call in CALLS.items()}

    def clear(self) -> None:
        self.machine.try_run("systemctl", "stop", self.name)  # one that was never written is not there
        self.machine.run("rm", "-f", f"/run/systemd/system/{self.name}")
        self.machine.run("systemctl", "daemon-reload")

    def expected(self, *, ours: bool = True) -> dict[str, str]:
        """systemd without BPF_FRAMEWORK, as of Debian 12, has no SocketBindDeny=."""
        theirs = {
            "IPAddressDeny= denies": "EPERM",
            "BPFProgram= denies": "EPERM",
            "SocketBindDeny= denies": "EPERM" if self.has_framework else asked.OK,
        }
        both = {"ours denies": "EHOSTUNREACH", "ours denies a bind": "EACCES"} if ours else {}
        return dict.fromkeys(CALLS, asked.OK) | theirs | both


@pytest.fixture
def beside(service: Service) -> Iterator[Beside]:
    """Not started."""
    machine = service.machine
    machine.write(asked.PROGRAM_PATH, Path(asked.__file__).read_text(encoding="utf-8"))
    machine.run(f"{VENV}/bin/python", "-c", PIN)
    made = Beside(machine)
    try:
        yield made
    finally:
        made.clear()
        machine.run("rm", "-f", PINNED)


@pytest.fixture
def both(service: Service, beside: Beside) -> Beside:
    """The unit with all of systemd's settings, and cgnetd with a policy for it."""
    beside.write(*SETTINGS)
    beside.restart()
    service.policy("beside", POLICY)
    service.start()
    return beside


def rows(service: Service) -> dict[tuple[str, str], dict[str, Any]]:
    """Programs of others on the unit's cgroup, as `status` shows them, by hook and name."""

    def neighbours() -> dict[str, Any]:
        found: dict[str, Any] = service.status()["neighbours"]
        assert found["error"] == ""
        return found if found["complete"] else {}  # one that is kept from its CPU does not get through the tree

    found = eventually(neighbours, "a whole look at the neighbours")
    return {(row["hook"], row["name"]): row for row in found["programs"] if row["cgroup"] == CGROUP}


def orders(service: Service) -> dict[tuple[str, str], str]:
    return {key: row["order"] for key, row in rows(service).items()}


def expected_orders(beside: Beside) -> dict[tuple[str, str], str]:
    framework = {("bind4", "sd_bind4"): "before", ("bind6", "sd_bind6"): "before"}
    return {
        ("connect4", "theirs"): "before",
        ("egress", "sd_fw_egress"): "apart",
        ("ingress", "sd_fw_ingress"): "apart",
        **(framework if beside.has_framework else {}),
    }


def test_both_hold_and_the_order_is_shown(service: Service, both: Beside) -> None:
    assert both.verdicts() == both.expected()
    assert orders(service) == expected_orders(both)
    found = rows(service)
    assert found["connect4", "theirs"]["pinned"] == PINNED
    assert "systemd" in found["egress", "sd_fw_egress"]["owner"]
    assert service.status()["conflicts"] == []
    lines = service.machine.run("cgnetctl", "status").splitlines()
    (line,) = (line for line in lines if " theirs " in line)
    assert line.split()[:3] == ["connect4", "before", "ours"]


def test_unit_that_starts_later_has_both(service: Service, beside: Beside) -> None:
    service.policy("beside", POLICY)
    service.start()
    beside.write(*SETTINGS)
    beside.restart()
    assert beside.verdicts() == beside.expected()
    assert orders(service) == expected_orders(beside)


def histories(beside: Beside) -> Iterator[tuple[str, dict[str, str]]]:
    """What the unit gets at each step of a life under systemd."""
    run = beside.machine.run
    beside.write(*SETTINGS)
    acts: dict[str, Callable[[], object]] = {
        "start": beside.restart,
        "daemon-reload": lambda: run("systemctl", "daemon-reload"),
        "restart": beside.restart,
        "set-property": lambda: run("systemctl", "set-property", "--runtime", beside.name, "IPAddressDeny=127.0.0.8"),
        "restart again": beside.restart,
    }
    for name, act in acts.items():
        act()
        run("systemctl", "show", "--property=Version")  # answered after all that it still had to do for the others
        yield name, beside.verdicts()


def test_what_systemd_does_keeps_ours_and_does_to_theirs_what_it_does_without_cgnetd(
    service: Service, beside: Beside
) -> None:
    """systemd loses settings of its own on the way: 257 what it holds by links at daemon-reload, 252 BPFProgram= at a
    restart. Neither is to be mended or made worse here."""
    alone = Beside(beside.machine, ALONE)
    try:
        without = list(histories(alone))
    finally:
        alone.clear()
    service.policy("beside", POLICY)
    service.start()
    ours = {what: verdict for what, verdict in beside.expected().items() if what.startswith("ours denies")}
    assert list(histories(beside)) == [(name, verdicts | ours) for name, verdicts in without]
    assert without[0][1] == beside.expected(ours=False), "it has them all at the start"
    beside.machine.reexecute()  # what it does to theirs, it does some time later
    assert {what: beside.ask(*CALLS[what]) for what in ours} == ours
    assert service.status()["enforcing"]


def test_what_cgnetd_does_keeps_theirs(service: Service, both: Beside) -> None:
    def ids() -> dict[tuple[str, str], int]:
        return {key: row["prog_id"] for key, row in rows(service).items()}

    before = ids()
    acts: tuple[Callable[[], object], ...] = (
        lambda: both.machine.run("cgnetctl", "reload"),
        lambda: both.machine.run("systemctl", "reload", UNIT),
        lambda: both.machine.run("systemctl", "restart", UNIT),
        lambda: both.machine.run("systemctl", "kill", "--signal=SIGKILL", UNIT),
    )
    for act in acts:
        act()
        assert both.verdicts() == both.expected()
    eventually(lambda: both.machine.try_run("cgnetctl", "status").returncode == 0, "the daemon")
    assert ids() == before
    both.machine.run("cgnetctl", "flush")
    assert both.verdicts() == both.expected(ours=False)
    assert ids() == before
    assert set(orders(service).values()) == {"apart"}


def test_restricted_interfaces_and_ours_both_hold(service: Service, beside: Beside) -> None:
    """systemd without BPF_FRAMEWORK does not have them, and says so in its journal."""
    beside.write("RestrictNetworkInterfaces=~lo")
    beside.restart()
    service.policy("beside", POLICY)
    service.start()
    assert beside.ask("send", "127.0.0.1", OPEN) == ("EPERM" if beside.has_framework else asked.OK)
    assert beside.ask("send", "127.0.0.1", SHUT) == "EHOSTUNREACH"
    found = {row["owner"] for (hook, _), row in rows(service).items() if hook == "egress"}
    assert ("systemd, RestrictNetworkInterfaces=" in found) == beside.has_framework


def test_held_hook_is_told_and_taken_when_it_is_let_go(service: Service, beside: Beside) -> None:
    """Somebody else holds a hook at the root before cgnetd starts."""
    beside.write()
    beside.restart()
    service.policy("beside", POLICY)
    with foreign(service.machine.cgroup, Says.ALLOW, name="lonely", flags=Flags.NONE) as holder:
        service.start()
        status = service.status()
        assert not status["enforcing"]
        assert [(each["kind"], each["hook"], each["prog_id"]) for each in status["conflicts"]] == [
            ("held", "connect4", holder)
        ]
        done = service.machine.try_run("cgnetctl", "status")
        assert done.returncode == 1
        assert f"conflict: hook connect4 cannot be attached to /sys/fs/cgroup: program {holder} lonely" in done.stdout
        told = eventually(lambda: service.own_journal(f"MESSAGE_ID={CONFLICT}"), "the conflict in the journal")
        assert f"program {holder} lonely" in told[-1]["MESSAGE"]
        assert beside.ask("send", "127.0.0.1", SHUT) == asked.OK
    service.machine.run("cgnetctl", "reload")
    assert service.status()["conflicts"] == []
    assert beside.ask("send", "127.0.0.1", SHUT) == "EHOSTUNREACH"
