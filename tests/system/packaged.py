# SPDX-License-Identifier: Apache-2.0
"""A machine that cgnetd is installed in and removed from by apt, without a network.

Must not know what a test expects.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from beds import packages, trees
from beds.errors import BedError, LackingError
from beds.machine import Machine
from beds.packages import Built
from cgnetd.kernel.hooks import HOOKS
from pybpf import BpfError
from pybpf.query import cgroup_attached
from system.conftest import Boot
from system.service import Service, eventually

APT_TIMEOUT_S = 300.0  # installing compiles Python and writes much, beside other tests
# Besides what cgnetd depends on: a victim, its client, and who reads manual pages and completions.
_OTHERS = ("nginx", "curl", "man-db", "bash-completion", "zsh", "fish")
PINS = "/sys/fs/bpf/cgnetd"
CALLER, OTHER_CALLER = "caller.service", "caller-new.service"
PORT = 2222  # nobody listens there
DENIED = "EHOSTUNREACH"
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: caller}}
spec:
  subject: {{units: [{CALLER}, {OTHER_CALLER}]}}
  egress: [{{name: all, action: deny, errno: {DENIED}}}]
"""
# A backend that is probed, by a worker of the daemon.
PROBED = f"""\
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: probed}}
spec:
  addresses: [192.0.2.20]
  ports: [{{port: {PORT}}}]
  backends: [{{address: 127.0.0.1}}]
  health: {{interval: 1s, timeout: 500ms}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: probed}}
spec:
  subject: {{units: [client-of-probed.service]}}
  egress: [{{name: probed, action: redirect, to: [service:probed]}}]
"""
_INPUT = "/root/packages"
_CALLS = "/run/calls"
# Counts its calls and those that were not denied; tells when it has begun, and the numbers when it is stopped.
_KEEP_CALLING = f"""\
import errno, pathlib, signal, socket, sys, time
going = [True]
signal.signal(signal.SIGTERM, lambda *_: going.clear())
calls = escapes = 0
while going:
    with socket.socket() as made:
        escapes += made.connect_ex(("127.0.0.1", {PORT})) != errno.{DENIED}
    calls += 1
    if calls == 100:
        pathlib.Path("{_CALLS}.begun").touch()
    time.sleep(0.001)
pathlib.Path("{_CALLS}").write_text(f"{{calls}} {{escapes}}")
"""
# Every file, and who is in which group. Not what any run of apt, of the journal or of a unit changes.
_INVENTORY = r"""
find / -xdev \( -path /root/packages -o -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/lib/apt \
    -o -path /var/log -o -path '/var/lib/dpkg/*-old' -o -path '/etc/*-' -o -path /var/lib/systemd \) -prune -o -print
find /sys/fs/bpf
find /run \( -path /run/systemd -o -path '/run/calls*' -o -path /run/lock -o -path /run/dbus -o -path /run/mount \) \
    -prune -o -print
cat /etc/group /etc/gshadow /etc/passwd
find / -xdev \( -path /root/packages -o -path /var/cache/apt \) -prune -o -name '*cgnet*' -print
find /run /sys/fs/bpf -name '*cgnet*'
journalctl --list-catalog
systemctl list-unit-files --no-legend --no-pager
"""


class Host:
    """`new` and `old` are paths of the packages in the machine."""

    def __init__(self, machine: Machine, built: Built) -> None:
        self.machine = machine
        self.service = Service(machine)
        self.new, self.old = f"{_INPUT}/cgnetd.deb", f"{_INPUT}/older.deb"
        directory = machine.path(_INPUT)
        directory.mkdir(parents=True, exist_ok=True)
        for inside, outside in ((self.new, built.deb), (self.old, built.older)):
            machine.path(inside).write_bytes(outside.read_bytes())
        machine.write(*Service.DIAL)
        machine.write("/run/keep-calling.py", _KEEP_CALLING)

    def apt(self, *words: str) -> str:
        """Run apt as an administrator would who answers nothing; what it says. AssertionError if it fails."""
        done = self.try_apt(*words)
        assert done.returncode == 0, f"apt {' '.join(words)}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def try_apt(self, *words: str) -> subprocess.CompletedProcess[str]:
        quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt", "--yes", "--option=Dpkg::Use-Pty=0")
        return self.machine.try_run(
            *(*quiet, *words),
            timeout=APT_TIMEOUT_S,
            capture_output=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def install(self, deb: str, *options: str) -> str:
        return self.apt("install", *options, deb)

    def purge(self) -> None:
        """Without cgnetd, whether it is there or not: apt knows no package that never was."""
        if self.machine.try_run("dpkg-query", "--show", "cgnetd").returncode == 0:
            self.apt("purge", "cgnetd")

    def inventory(self) -> list[str]:
        """What may not differ when a package was there and is gone."""
        return sorted(self.machine.run("sh", "-c", _INVENTORY).splitlines())

    def dial(self) -> str:
        """What a new unit gets that the policy governs."""
        return self.service.dial(OTHER_CALLER, PORT)

    def keep_calling(self) -> None:
        """Start the caller, which is denied from now on; returns after its hundredth call."""
        self.machine.run("rm", "-f", _CALLS, f"{_CALLS}.begun")
        self.machine.run("systemd-run", "--quiet", f"--unit={CALLER}", "--collect", "python3", "/run/keep-calling.py")
        eventually(self.machine.path(f"{_CALLS}.begun").exists, "the hundredth call")

    def end_calling(self) -> tuple[int, int]:
        """How many calls it made, and how many of them were not denied."""
        self.machine.run("systemctl", "stop", CALLER)
        calls, escapes = self.machine.path(_CALLS).read_text(encoding="utf-8").split()
        return int(calls), int(escapes)

    def attached(self) -> dict[str, tuple[int, ...]]:
        """Programs at the root of the machine's cgroups, by hook."""
        found = {}
        cgroup_fd = os.open(self.machine.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for hook in HOOKS.values():
                with suppress(BpfError):  # a hook that this kernel lacks; tracepoints
                    if ids := cgroup_attached(cgroup_fd, hook.attach_type).prog_ids:
                        found[hook.name] = ids
        finally:
            os.close(cgroup_fd)
        return found

    def units(self) -> set[str]:
        """Units of cgnetd that are active or failed."""
        words = ("systemctl", "list-units", "--plain", "--no-legend", "--no-pager", "cgnetd*", "*cgnetd*")
        return {line.split()[0] for line in self.machine.run(*words).splitlines()}

    def pins(self) -> list[str]:
        """What is on its bpffs, but for what every bpffs has."""
        return [path.name for path in self.machine.path("/sys/fs/bpf").iterdir() if path.suffix != ".debug"]


@contextmanager
def fresh_host(boot: Boot, distro: trees.Distro) -> Iterator[Host]:
    """A machine that cgnetd never was in, with what it depends on. Fails if it cannot be built."""
    try:
        built = packages.built(distro)
        layer = packages.ready(distro, built.depends, *_OTHERS)
    except LackingError as error:
        pytest.skip(str(error))
    except BedError as error:
        pytest.fail(f"build the package: {error}", pytrace=False)
    with boot(bare=layer) as machine:
        yield Host(machine, built)
