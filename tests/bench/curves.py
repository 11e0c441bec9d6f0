# SPDX-License-Identifier: Apache-2.0
"""Putting a list in force where another one was, by size: the time it takes, and the memory of kernel and loader.

Each is loaded the way that its users do: a file and a command. The kernel's memory is what stays charged to the loader,
with what it was before subtracted. Must not know how results are shown.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import build, denylist, firewalld, netfilter
from bench.daemon import rss_mib
from bench.memory import KernelMemory, kernel_memory
from bench.prefixes import Prefix
from bench.tries import Tries
from support import native, sandbox
from support.daemon import RealDaemon
from support.netns import private_netns

SIZES = (1, 10, 100, 1_000, 10_000, 100_000)
GIVE_UP_S = 30.0  # nothing larger is tried by who took longer for one
_SETTLE_S = 0.3  # what is freed after a grace period is gone by then
_CTL = "import sys; from cgnetd.cli.ctl import main; sys.exit(main())"

Listed = tuple[Prefix, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Seconds from start to return of the command; MiB that who loads has resident, at most if it ends, 0 if nobody
    does; KiB of the kernel, if they are known better than by what is charged."""

    seconds: float
    resident_mib: float = 0.0
    kernel_kib: int | None = None


Load = Callable[[Listed], Loaded]
Loader = Callable[[ExitStack, Path, KernelMemory], Load]


def measure(scratch: Path, rounds: int, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Rows by loader and size: milliseconds (median, and range), KiB of the kernel, MiB of loader;
    or why it failed, and then nothing larger."""
    missing = netfilter.lacking() | ({"firewalld": lacking} if (lacking := firewalld.lacking()) else {})
    rows = []
    for name, loader in LOADERS.items():
        if name.split()[0] not in missing:
            rows += list(_curve(name, loader, scratch, rounds, sizes))
    return {"rounds": rounds, "missing": missing, "rows": rows}


def _curve(name: str, loader: Loader, scratch: Path, rounds: int, sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    directory = scratch / f"curve-{name.replace(' ', '-')}"
    directory.mkdir()
    with ExitStack() as stack:
        memory = stack.enter_context(kernel_memory())
        load = loader(stack, directory, memory)
        before = _kib(memory)
        for size in sizes:
            try:
                loaded = [load(_changed(size, number)) for number in range(rounds)]
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                yield {"loader": name, "size": size, "failed": str(error)}
                return
            seconds = [found.seconds for found in loaded]
            known, charged = loaded[-1].kernel_kib, _kib(memory)
            yield {
                "loader": name,
                "size": size,
                "ms": round(median(seconds) * 1e3, 1),
                "low_ms": round(min(seconds) * 1e3, 1),
                "high_ms": round(max(seconds) * 1e3, 1),
                "kernel_kib": known or (None if charged is None or before is None else max(0, charged - before)),
                "resident_mib": max(found.resident_mib for found in loaded),
            }
            if max(seconds) > GIVE_UP_S:
                return


def _kib(memory: KernelMemory) -> int | None:
    time.sleep(_SETTLE_S)
    return memory.kib()


def _changed(size: int, number: int) -> Listed:
    """A list of that size of which a part is another one each time."""
    longer = denylist.listed(size + size // 10 + 2)
    return tuple(sorted(random.Random(number).sample(longer, size)))


# -- cgnetd ---------------------------------------------------------------------------------------------------------


def _cgnetd(*, as_set: bool) -> Loader:
    def loader(stack: ExitStack, directory: Path, memory: KernelMemory) -> Load:
        cgroup = stack.enter_context(sandbox.cgroup())
        cgroup.child("many")
        pins = stack.enter_context(sandbox.bpffs_mount())
        daemon = stack.enter_context(RealDaemon(directory, cgroup.path, pins / "cgnetd"))
        listed = directory / "listed.txt"
        listed.write_bytes(b"")
        daemon.write_policy("listed.yaml", denylist.as_rules(denylist.listed(1), "many").decode())
        # It is told when to look, and does not begin by itself what the command is then timed for.
        daemon.start(object_dir=build.objects(directory.parent))
        memory.enter(daemon.pid)

        def load(prefixes: Listed) -> Loaded:
            if as_set:
                listed.write_text("".join(f"{line}\n" for line in _lines(prefixes)), encoding="ascii")
                daemon.write_policy("listed.yaml", denylist.as_set("many", os.fspath(listed)))
            else:
                daemon.write_policy("listed.yaml", denylist.as_rules(prefixes, "many").decode())
            began = time.monotonic()
            command = [sys.executable, "-c", _CTL, "--control-socket", str(daemon.control_path), "reload"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return Loaded(time.monotonic() - began, rss_mib(daemon))

        return load

    return loader


def _lines(prefixes: Listed) -> Iterator[str]:
    return (f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255}/{length}" for _, a, length in prefixes)


# -- others ---------------------------------------------------------------------------------------------------------


def _netfilter(says: Callable[[Listed, str], str], *, iptables: bool = False) -> Loader:
    def loader(stack: ExitStack, directory: Path, memory: KernelMemory) -> Load:
        network = stack.enter_context(private_netns())
        cgroup = stack.enter_context(sandbox.cgroup())
        command = netfilter.iptables_command(network) if iptables else netfilter.nft_command(network)
        program, text = native.build("peak", directory), directory / "rules.txt"

        def load(prefixes: Listed) -> Loaded:
            text.write_text(says(prefixes, cgroup.path.name), encoding="ascii")
            return _run([program, memory.path or "-", *command], text)

        return load

    return loader


def _run(command: list[str | Path], text: Path) -> Loaded:
    """To its end, with `text` as what it reads."""
    with text.open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-3:]}: {done.stderr.strip()[:500]}")
    nanoseconds, kib = done.stdout.split()[-2:]
    return Loaded(int(nanoseconds) / 1e9, round(int(kib) / 1024, 1))


def _firewalld(stack: ExitStack, directory: Path, memory: KernelMemory) -> Load:
    network = stack.enter_context(private_netns())
    daemon = stack.enter_context(firewalld.Firewalld(network, directory / "firewalld"))
    daemon.start(denylist.firewalld_set(denylist.listed(1)))
    memory.enter(daemon.pid)

    def load(prefixes: Listed) -> Loaded:
        daemon.put(denylist.firewalld_set(prefixes))
        began = time.monotonic()
        daemon.reload(4 * GIVE_UP_S)
        return Loaded(time.monotonic() - began, _resident_mib(daemon.pid))

    return load


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


def _tries(stack: ExitStack, directory: Path, memory: KernelMemory) -> Load:
    """Maps made anew, by updates of 4,096 entries a call, from what is there as bytes; no daemon around it."""
    holding = stack.enter_context(_kept())

    def load(prefixes: Listed) -> Loaded:
        began = time.monotonic()
        tries = Tries(prefixes)
        seconds = time.monotonic() - began
        holding(tries)
        return Loaded(seconds, kernel_kib=tries.kernel_kib())

    return load


@contextmanager
def _kept() -> Iterator[Callable[[Tries], None]]:
    """Keeps what it was given last."""
    held = ExitStack()

    def keep(tries: Tries) -> None:
        held.close()
        held.enter_context(tries)

    try:
        yield keep
    finally:
        held.close()


LOADERS: dict[str, Loader] = {
    "cgnetd rules": _cgnetd(as_set=False),
    "cgnetd set": _cgnetd(as_set=True),
    "nftables rules": _netfilter(denylist.nft_rules),
    "nftables set": _netfilter(denylist.nft_set),
    "iptables": _netfilter(denylist.iptables, iptables=True),
    "firewalld": _firewalld,
    "lpm program": _tries,
}
