# SPDX-License-Identifier: Apache-2.0
"""The daemon on a large host: loading, changing one rule or one set of very many, looking at everything, doing nothing.

Times from a signal end when another generation is in force, seen in the kernel. Must not know how results are shown.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.daemon import cpu_ticks, rss_mib, wake_ups
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.store import Store
from support import sandbox
from support.crowd import Crowd, slice_name, unit_policy
from support.daemon import RealDaemon
from support.sandbox import PrivateCgroup

_PATIENCE_S = 60.0
_SETTLED_S = 1.0  # after a change: the pass that takes away the old, and files that are no longer young
_IDLE_S = 10.0
_LOOK_S = 0.0005  # between looks at what is in force
_STARTS = 300  # cgroups made in a turn


CROWDS = {
    "policies": Crowd(slices=10, common=10, own=980, units=20, sets=0),
    "everything": Crowd(),
}


def measure(scratch: Path, objects: Path, rounds: int) -> dict[str, Any]:
    """By name of the crowd: milliseconds, microseconds for cgroups; lowest and median of the rounds."""
    return {name: _measure(scratch / f"scale-{name}", objects, rounds, crowd) for name, crowd in CROWDS.items()}


def _measure(directory: Path, objects: Path, rounds: int, crowd: Crowd) -> dict[str, Any]:
    directory.mkdir()
    with sandbox.cgroup() as root, sandbox.cgroup() as beside, sandbox.bpffs_mount() as bpffs:
        bare = _starts_us(root, beside, rounds)
        for path in crowd.paths():
            root.child(path)
        with _running(directory, root, bpffs / "cgnetd", objects, crowd) as (daemon, store):
            loaded = daemon.ask("status")
            found = {
                "policies": len(loaded["policies"]),
                "cgroups": loaded["cgroups"],
                "chains": crowd.chains,
                "prefixes": crowd.sets * crowd.prefixes,
                "image_kib": loaded["sizes"]["image_bytes"] // 1024,
                "load_ms": loaded["last_load"]["duration_ms"],
                "rule_ms": _spread(_rule_ms(daemon, store, number) for number in range(rounds)),
                "set_ms": _spread(
                    _set_ms(daemon, store, crowd, directory, number) for number in range(rounds if crowd.sets else 0)
                ),
                "pass_ms": _spread(_pass_ms(daemon) for _ in range(rounds)),
                "start_us": {"bare": bare, "governed": _starts_us(root.child(slice_name(0)), beside, rounds)},
            }
            return found | _idle(daemon) | {"rss_mib": rss_mib(daemon)}


@contextmanager
def _running(
    directory: Path, root: PrivateCgroup, pin_dir: Path, objects: Path, crowd: Crowd
) -> Iterator[tuple[RealDaemon, Store]]:
    with RealDaemon(directory, root.path, pin_dir) as daemon:
        crowd.write(daemon.write_policy, directory)
        daemon.start(object_dir=objects)
        with CgroupRoot(root.path) as tree, Store.open(pin_dir, tree, create=False) as store:
            yield daemon, store


def _rule_ms(daemon: RealDaemon, store: Store, number: int) -> float:
    """Of one changed rule of one policy."""
    daemon.write_policy("own1.yaml", unit_policy("own1", 1000 + number))
    return _until_in_force_ms(daemon, store)


def _set_ms(daemon: RealDaemon, store: Store, crowd: Crowd, directory: Path, number: int) -> float:
    """Of another list of as many prefixes in the file of one set."""
    crowd.write_set(0, directory, seed=1 + number)
    return _until_in_force_ms(daemon, store)


def _until_in_force_ms(daemon: RealDaemon, store: Store) -> float:
    """From the signal that asks for a reload to another generation in force. RuntimeError if none comes."""
    before = _generation(store)
    began = time.monotonic()
    daemon.signal(signal.SIGHUP)
    while _generation(store) == before:
        if time.monotonic() - began > _PATIENCE_S:
            raise RuntimeError("the reload never came into force")
        time.sleep(_LOOK_S)  # not to compete with the daemon for the CPU
    took = time.monotonic() - began
    time.sleep(_SETTLED_S)
    return took * 1e3


def _generation(store: Store) -> int:
    control = store.control()
    return control.generations[control.active]


def _pass_ms(daemon: RealDaemon) -> float:
    """Of a pass that reads every file, compares every label, and finds nothing to do."""
    changed = daemon.ask("reload")["changed"]
    if changed:
        raise RuntimeError("there was something to do")
    return float(daemon.ask("status")["last_reconcile"]["duration_ms"])


def _starts_us(one: PrivateCgroup, beside: PrivateCgroup, rounds: int) -> dict[str, float]:
    """Of making a cgroup here, and of one that is not below the daemon's root, in turns."""
    turns = [(_turn_us(one), _turn_us(beside)) for _ in range(rounds)]
    return {"here": _lowest(here for here, _ in turns), "beside": _lowest(there for _, there in turns)}


def _turn_us(parent: PrivateCgroup) -> float:
    paths = [parent.path / f"start{number}.service" for number in range(_STARTS)]
    took = []
    for path in paths:
        began = time.perf_counter()
        path.mkdir()
        took.append(time.perf_counter() - began)
    for path in paths:
        path.rmdir()
    return median(took) * 1e6


def _idle(daemon: RealDaemon) -> dict[str, Any]:
    woken, ticks = wake_ups(daemon), cpu_ticks(daemon)
    time.sleep(_IDLE_S)
    return {"idle_s": _IDLE_S, "idle_cpu_ms": 10 * (cpu_ticks(daemon) - ticks), "wake_ups": wake_ups(daemon) - woken}


def _spread(turns: Iterator[float]) -> dict[str, float]:
    """Empty if there are no turns."""
    found = list(turns)
    if not found:
        return {}
    return {"lowest": round(min(found), 1), "median": round(median(found), 1)}


def _lowest(turns: Iterator[float]) -> float:
    return round(min(turns), 1)
