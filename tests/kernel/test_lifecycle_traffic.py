# SPDX-License-Identifier: Apache-2.0
"""No wrong verdict under traffic, whatever happens to the daemon: killed, restarted, reloaded, upgraded, fed nonsense.

Processes in governed cgroups connect and send all the time, to an address that is always allowed and to one that is
always denied, while everything else about the policies changes. They count what was not as it must be.
"""

from __future__ import annotations

import errno
import itertools
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgnetd.errors import CgnetdError
from pybpf import Link, Program
from support import native
from support.daemon import RealDaemon
from support.netns import PrivateNetns, private_netns
from support.sandbox import PrivateCgroup

EVENTS = 50
CALLS = 100_000
PAUSE_US = 2000
WORKERS = ("a.service", "b.slice/b.service", "c.service/deep/er")
BPF_SOURCES = Path(__file__).parents[2] / "bpf"

CONSTANT = """
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: constant}
spec:
  subject: {units: [a.service, b.service, c.service]}
  egress:
    - {name: open, action: allow, to: [127.0.1.0/24]}
    - {name: shut, action: deny, to: [127.0.2.0/24], errno: EHOSTUNREACH}
"""


def filler(source: random.Random) -> str:
    """Policies on the same cgroups, before and after the constant one, that never say anything of its addresses."""
    rules = "\n".join(
        f"    - {{action: {source.choice(['allow', 'deny', 'pass'])}, to: [10.{n % 256}.{source.randrange(256)}.0/24],"
        f" ports: [{source.randrange(1, 65535)}]}}"
        for n in range(source.choice((1, 20, 600)))
    )
    return "---".join(
        f"""
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: filler-{tier}}}
spec:
  subject: {{cgroups: [/, "/**"], not: {{units: [x{source.randrange(9)}.service]}}}}
  tier: {tier}
  mode: {source.choice(["enforce", "audit"])}
  priority: {source.randrange(1000)}
  egress:
{rules}
"""
        for tier in ("admin", "normal", "baseline")
    )


class Traffic:
    """One worker in its cgroup, in a network where its ports are free."""

    def __init__(self, program: Path, cgroup: PrivateCgroup, number: int, network: PrivateNetns) -> None:
        ends = (f"127.0.1.{number}", f"127.0.2.{number}", str(20000 + number))
        enter = ["nsenter", f"--net={network.path}"]
        command = [*enter, str(program), str(cgroup.path), *ends, str(errno.EHOSTUNREACH), str(PAUSE_US)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def calls(self) -> int:
        """How many calls it has made by now."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> tuple[int, int, str]:
        """Calls, wrong ones, and what the first of those was."""
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=60)
        found = json.loads(output.splitlines()[-1])
        return found["calls"], found["wrong"], found["first"]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if native.compiler() is None:
        pytest.skip("no C compiler; install one: apt-get install gcc")
    return native.build("traffic", tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def other_objects(tmp_path_factory: pytest.TempPathFactory, clang: str) -> Path:
    """The programs of another version: the same meaning, other instructions."""
    sources = shutil.copytree(BPF_SOURCES, tmp_path_factory.mktemp("sources") / "bpf")
    for name, old, new in (
        ("identity.bpf.h", "CGN_DEPTH_MAX 32", "CGN_DEPTH_MAX 31"),
        ("edges.bpf.h", "CGN_EDGE_STEPS 9", "CGN_EDGE_STEPS 10"),
    ):
        text = (sources / name).read_text(encoding="utf-8")
        assert old in text
        (sources / name).write_text(text.replace(old, new), encoding="utf-8")
    out = tmp_path_factory.mktemp("other-objects")
    subprocess.run(["make", "-s", "-C", sources, f"OUT={out}", f"CLANG={clang}"], check=True)
    return out


@pytest.fixture
def daemon(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[RealDaemon]:
    with RealDaemon(tmp_path, private_cgroup.path, pin_dir) as made:
        made.write_policy("constant.yaml", CONSTANT)
        made.start(object_dir=objects)
        yield made


@pytest.fixture
def traffic(program: Path, daemon: RealDaemon, private_cgroup: PrivateCgroup) -> Iterator[list[Traffic]]:
    with private_netns() as network:
        workers = [Traffic(program, private_cgroup.child(name), n, network) for n, name in enumerate(WORKERS, 1)]
        yield workers
        for worker in workers:
            worker.kill()


def attached_tags(pin_dir: Path) -> dict[str, bytes]:
    tags = {}
    for pin in (pin_dir / "links").iterdir():
        with Link.from_pin(pin) as link, Program.from_id(link.info().prog_id) as attached:
            tags[pin.name] = attached.info.tag
    return tags


class Life:
    """What happens to the daemon, one event after the other."""

    def __init__(self, daemon: RealDaemon, pin_dir: Path, object_dirs: tuple[Path, Path]) -> None:
        self._daemon = daemon
        self._pin_dir = pin_dir
        self._versions = itertools.cycle(reversed(object_dirs))
        self._object_dir = object_dirs[0]
        self._source = random.Random(1)
        self.events: tuple[Callable[[], None], ...] = (
            self.reload,
            self.kill_and_restart,
            self.kill_and_restart_with_other_policies,
            self.change_version,
            self.reject_nonsense,
        )

    def _change(self) -> None:
        self._daemon.write_policy("filler.yaml", filler(self._source))

    def reload(self) -> None:
        before = self._daemon.ask("status")["generation"]
        self._change()
        self._daemon.ask("reload")
        assert self._daemon.ask("status")["generation"] != before

    def kill_and_restart(self) -> None:
        self._daemon.kill()
        self._daemon.start(object_dir=self._object_dir)

    def kill_and_restart_with_other_policies(self) -> None:
        self._daemon.kill()
        self._change()
        self._daemon.start(object_dir=self._object_dir)

    def change_version(self) -> None:
        """To the other programs: an upgrade, next time a downgrade."""
        before = attached_tags(self._pin_dir)
        self._object_dir = next(self._versions)
        assert self._daemon.stop() == 0
        self._daemon.start(object_dir=self._object_dir)
        after = attached_tags(self._pin_dir)
        assert after.keys() == before.keys()
        assert after["connect4"] != before["connect4"]
        assert "drift-repaired" not in self._daemon.output_path.read_text(encoding="utf-8")

    def reject_nonsense(self) -> None:
        self._daemon.write_policy("filler.yaml", "apiVersion: cgnetd/v1\nkind: Policy\nspec: [half a")
        with pytest.raises(CgnetdError):
            self._daemon.ask("reload")
        self._change()


def test_no_wrong_verdict_whatever_happens_to_the_daemon(
    daemon: RealDaemon, traffic: list[Traffic], pin_dir: Path, objects: Path, other_objects: Path
) -> None:
    life = Life(daemon, pin_dir, (objects, other_objects))
    for event, _ in zip(itertools.cycle(life.events), range(EVENTS), strict=False):
        event()
    while sum(worker.calls() for worker in traffic) < CALLS:
        time.sleep(0.1)
    results = [worker.end() for worker in traffic]
    assert [(wrong, first) for _, wrong, first in results] == [(0, "")] * len(traffic)
    assert sum(calls for calls, _, _ in results) >= CALLS
    assert daemon.ask("status")["enforcing"] is True
