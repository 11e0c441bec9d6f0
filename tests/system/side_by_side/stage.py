# SPDX-License-Identifier: Apache-2.0
"""A machine with neighbours that answer, and units of it that make the calls of cases.

Must not know what is expected of them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from beds.machine import Machine
from system.service import Service, eventually
from system.side_by_side import calls
from system.side_by_side.data import NOTHING, SYSTEMD, Case

TESTS = Path(__file__).parents[2]
PLACE = "/run/side"
PORTS = ("7", "8")
ESTABLISHED = "established 127.0.0.1"
# Hosts behind devices of their own: 192.168.113.1, .5 and .9; the first is also 192.0.2.2 and 2001:db8::2.
NEIGHBOURS = range(3)
_PROGRAMS = {
    "calls.py": "system/side_by_side/calls.py",
    "servers.py": "system/side_by_side/servers.py",
    "support/__init__.py": "support/__init__.py",
    "support/libc.py": "support/libc.py",
    "support/uring.py": "support/uring.py",
}
_NETWORK = """
set -e
for i in 0 1 2; do
    ip netns add side$i
    ip link add veth$i type veth peer name veth${i}_ netns side$i
    ip addr add 192.168.113.$((4 * i + 2))/30 dev veth$i
    ip -n side$i addr add 192.168.113.$((4 * i + 1))/30 dev veth${i}_
    ip link set veth$i up
    ip -n side$i link set veth${i}_ up
    ip -n side$i link set lo up
done
ip addr add 192.0.2.1/24 dev veth0
ip addr add 2001:db8::1/64 dev veth0 nodad
ip -n side0 addr add 192.0.2.2/24 dev veth0_
ip -n side0 addr add 2001:db8::2/64 dev veth0_ nodad
"""
_CLEAN = """
systemctl stop 'side-server*.service'
for i in 0 1 2; do ip link del veth$i; ip netns del side$i; done
rm -rf /run/side /run/systemd/system/side*.d /run/systemd/system.control/side*.d
systemctl daemon-reload
"""


class Stage:
    """Set up once for all cases."""

    def __init__(self, service: Service) -> None:
        self.machine: Machine = service.machine
        self.service = service

    def set_up(self) -> None:
        for inside, path in _PROGRAMS.items():
            self.machine.write(f"{PLACE}/{inside}", (TESTS / path).read_text(encoding="utf-8"))
        self.machine.run("sh", "-c", _NETWORK)
        self._serve("side-server", f"--setenv=BYSTANDER={PLACE}/bystander.sock")
        for number in NEIGHBOURS:
            self._serve(f"side-server{number}", "-p", f"NetworkNamespacePath=/run/netns/side{number}")

    def clean_up(self) -> None:
        self.machine.try_run("sh", "-c", _CLEAN)

    def enforce(self, cases: Iterable[Case]) -> None:
        """Settings and policies of all cases at once: each is for a unit of its own."""
        for case in cases:
            self._write_settings(case)
            self.service.policy(case.name, yaml.safe_dump_all(case.documents(), sort_keys=False))
        self.machine.run("systemctl", "daemon-reload")
        self.service.start()

    def run(self, case: Case, side: str) -> dict[str, str]:
        """What the calls of a case get in the unit of one side, by call."""
        found: dict[str, str] = json.loads(self.machine.run(*self.command(case, side, *case.calls)))
        return found

    def command(self, case: Case, side: str, *asked: str) -> tuple[str, ...]:
        """What makes calls in the unit of one side, and prints what they got. Its description holds no addresses."""
        words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={case.unit(side)}")
        within = () if case.slice_policy is None else (f"--slice={case.slice(side)}",)
        return *words, *within, "--description=calls", "python3", f"{PLACE}/calls.py", json.dumps(asked)

    def _write_settings(self, case: Case) -> None:
        """As drop-ins of units that do not exist yet: systemd-run does not take all that files do."""
        wanted = (
            ("Service", case.unit(SYSTEMD), case.properties),
            ("Slice", case.slice(SYSTEMD), case.slice_properties),
        )
        for kind, unit, settings in wanted:
            if settings:
                text = "\n".join((f"[{kind}]", *settings, ""))
                self.machine.write(f"/run/systemd/system/{unit}.d/side.conf", text)

    @contextmanager
    def connected(self, case: Case, side: str) -> Iterator[subprocess.Popen[str]]:
        """A unit whose connection stands; it uses it again at `change`."""
        here, changed = (self.machine.path(path) for path in (calls.CONNECTED_PATH, calls.CHANGED_PATH))
        here.unlink(missing_ok=True)
        changed.unlink(missing_ok=True)
        command = self.machine.command(*self.command(case, side, ESTABLISHED))
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
            try:
                eventually(here.exists, "the connection")
                yield process
            finally:
                changed.touch()
                process.wait(calls.CHANGE_WITHIN_S)

    def change(self, process: subprocess.Popen[str]) -> str:
        """What became of the connection when everything was changed."""
        self.machine.path(calls.CHANGED_PATH).touch()
        told: dict[str, str] = json.loads(process.communicate(timeout=calls.CHANGE_WITHIN_S)[0])
        return told[ESTABLISHED]

    def _serve(self, name: str, *options: str) -> None:
        words = ("systemd-run", "--quiet", "--collect", "--service-type=notify", f"--unit={name}", *options)
        self.machine.run(*words, "python3", f"{PLACE}/servers.py", *PORTS)


def is_framework_built_in(machine: Machine) -> bool:
    """Without it systemd accepts SocketBindDeny= and RestrictNetworkInterfaces=, and does nothing."""
    return "+BPF_FRAMEWORK" in machine.run("systemctl", "--version")


def expected_side(case: Case, side: str, *, framework: bool, needs_framework: bool) -> str:
    """On whose side the results are those of `side`: without the framework, systemd's settings are as none."""
    return NOTHING if side == SYSTEMD and needs_framework and not framework else side
