# SPDX-License-Identifier: Apache-2.0
"""What the daemon costs: a reload of 10,000 rules, 100,000 prefixes, doing nothing. Must not know how it is shown."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgnetd.datapath.compile import compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action, PolicySet
from support import sandbox
from support.daemon import RealDaemon

RULES = 10_000
PREFIXES = 100_000
RELOADS = 7
_CTL = "import sys; from cgnetd.cli.ctl import main; sys.exit(main())"


def rules_text(seed: int, count: int = RULES) -> str:
    """One policy of `count` rules, each with its own host and port."""
    source = random.Random(seed)
    lines = "\n".join(
        f"    - {{action: deny, to: [10.0.{n >> 8}.{n & 255}], ports: [{source.randrange(1, 65535)}]}}"
        for n in range(count)
    )
    return (
        "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {name: many}\nspec:\n  subject: {cgroups: [/many]}\n"
        f"  egress:\n{lines}\n"
    )


def set_text(seed: int = 1) -> tuple[str, bytes]:
    """A policy with a set, and the set's file of 100,000 prefixes."""
    source = random.Random(seed)
    starts = source.sample(range(1 << 24), PREFIXES)
    lines = [f"{n >> 16}.{n >> 8 & 255}.{n & 255}.0/24\n" for n in starts]
    policy = (
        "apiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {name: many}\nspec: {files: [/many.txt]}\n---\n"
        "apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {name: uses}\nspec:\n  subject: {cgroups: [/many]}\n"
        '  egress: [{action: deny, to: ["set:many"]}]\n'
    )
    return policy, "".join(lines).encode()


@contextmanager
def running(
    scratch: Path, objects: Path, name: str, policy: str, *, extra: tuple[str, ...] = ()
) -> Iterator[RealDaemon]:
    """A daemon in `scratch`/NAME that has this policy in force; its tree has the cgroup `many`."""
    directory = scratch / name
    directory.mkdir()
    with sandbox.cgroup() as cgroup, sandbox.bpffs_mount() as bpffs:
        cgroup.child("many")
        with RealDaemon(directory, cgroup.path, bpffs / "cgnetd") as daemon:
            daemon.write_policy("many.yaml", policy)
            daemon.start(object_dir=objects, extra=extra)
            yield daemon


def measure_reload(scratch: Path, objects: Path) -> dict[str, Any]:
    """Milliseconds, medians: the command from start to return, the daemon's pass in it, and its parts done here."""
    commands, passes = [], []
    with running(scratch, objects, "reload", rules_text(0)) as daemon:
        for seed in range(1, RELOADS + 1):
            daemon.write_policy("many.yaml", rules_text(seed))
            commands.append(_command_ms(daemon))
            daemon.write_policy("many.yaml", rules_text(1000 + seed))
            passes.append(_pass_ms(daemon))
        rss = rss_mib(daemon)
    policy, prefixes = set_text()
    return {
        "rules": RULES,
        "command_ms": round(statistics.median(commands), 1),
        "pass_ms": round(statistics.median(passes), 1),
        "parts": _parts(rules_text(1), b""),
        "prefixes": {"count": PREFIXES, **_parts(policy, prefixes)},
        "rss_mib": rss,
    }


def _command_ms(daemon: RealDaemon) -> float:
    """Of `cgnetctl reload`, from start to return. The daemon may have seen the files change before it is asked."""
    began = time.monotonic()
    command = [sys.executable, "-c", _CTL, "--control-socket", str(daemon.control_path), "reload"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1e3


def _pass_ms(daemon: RealDaemon) -> float:
    """Of the daemon's one pass that puts the changed files in force, whoever asked for it."""
    before = daemon.ask("status")["generation"]
    daemon.ask("reload")
    status = daemon.ask("status")
    assert status["generation"] == before + 1, "the changed files made more than one generation"
    return float(status["last_load"]["duration_ms"])


def _parts(policy: str, set_file: bytes) -> dict[str, float]:
    """Milliseconds to parse and to compile, best of three."""
    parsed, compiled = [], []
    for _ in range(3):
        began = time.monotonic()
        policy_set = _parse(policy, set_file)
        parsed.append(time.monotonic() - began)
        began = time.monotonic()
        compile_image(policy_set, default_action=Action.ALLOW, generation=1)
        compiled.append(time.monotonic() - began)
    return {"parse_ms": round(min(parsed) * 1e3, 1), "compile_ms": round(min(compiled) * 1e3, 1)}


def _parse(policy: str, set_file: bytes) -> PolicySet:
    source = Source("many.yaml", policy.encode())
    result = parse([source], read_set=lambda _: set_file, find_user=lambda _: 0)
    assert result.policy_set, result.problems
    return result.policy_set


def measure_idle(scratch: Path, objects: Path, seconds: float) -> dict[str, Any]:
    """Times the daemon woke up while nothing happened, and its resident memory in MiB."""
    with running(scratch, objects, "idle", rules_text(0, 100)) as daemon:
        time.sleep(1.0)
        before, ticks = wake_ups(daemon), cpu_ticks(daemon)
        time.sleep(seconds)
        return {
            "seconds": seconds,
            "wake_ups": wake_ups(daemon) - before,
            "cpu_ms": 10 * (cpu_ticks(daemon) - ticks),
            "rss_mib": rss_mib(daemon),
        }


def _status(daemon: RealDaemon, field: str) -> int:
    for line in Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise ValueError(field)


def wake_ups(daemon: RealDaemon) -> int:
    return _status(daemon, "voluntary_ctxt_switches")


def cpu_ticks(daemon: RealDaemon) -> int:
    """User and system time in hundredths of a second."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def cpu_s(daemon: RealDaemon) -> float:
    """Of all its threads, by the scheduler's own clock: ticks are too coarse for what takes milliseconds."""
    tasks = Path(f"/proc/{daemon.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def rss_mib(daemon: RealDaemon) -> float:
    return round(_status(daemon, "VmRSS") / 1024, 1)
