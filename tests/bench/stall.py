# SPDX-License-Identifier: Apache-2.0
"""How long a CPU does nothing else while a large generation is freed, beside as long a time in which nothing is.

Seen by threads that come before all others, see support/native/stall.c. Must not know how results are shown.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cgnetd.datapath.compile import Image, compile_image
from cgnetd.policy.load import Source, parse
from cgnetd.policy.types import Action
from pybpf import BpfError, Map
from support import classbench, native, sandbox
from support.enforce import Enforcement

PREFIXES = 1_000_000
_WINDOW_S = 1.7  # the kernel frees up to a second after the last user of a map is gone
_SETTLE_S = 0.5  # after a load


def measure(scratch: Path, objects: Path, rounds: int) -> dict[str, Any]:
    """Microseconds, by CPU: lowest, median and highest of the windows with freeing and of those without."""
    program = native.build("stall", scratch, "-pthread")
    image = _image()
    with sandbox.cgroup() as root, sandbox.bpffs_mount() as bpffs:
        root.child("bench")
        with Enforcement(root.path, bpffs / "cgnetd", objects) as enforcement:
            enforcement.load(image)
            freed, idle = [], []
            for number in range(rounds):
                enforcement.load(image.with_generation(2 + number))
                time.sleep(_SETTLE_S)
                windows = [(freed, lambda: _free(enforcement)), (idle, lambda: None)]
                for seen, meanwhile in windows if number % 2 else reversed(windows):
                    seen.append(_window(program, meanwhile))
    sizes = {"prefixes": PREFIXES, "image_kib": image.sizes.bytes // 1024}
    return {"rounds": rounds, "window_s": _WINDOW_S, **sizes, "freed_us": _by_cpu(freed), "idle_us": _by_cpu(idle)}


def _image() -> Image:
    """Of a policy that denies a set."""
    text = f"{classbench.head('bench', '/bench')}  egress: [{{action: deny, to: ['set:many']}}]\n"
    source = Source("bench.yaml", f"{text}---\n{classbench.set_text('many', '/many')}".encode())
    listed = "\n".join(classbench.prefixes(PREFIXES)).encode()
    found = parse([source], read_set=lambda _: listed, find_user=lambda _: 0)
    assert found.policy_set, found.problems
    return compile_image(found.policy_set, default_action=Action.ALLOW, generation=1)


def _window(program: Path, meanwhile: Callable[[], None]) -> list[int]:
    """Nanoseconds, by CPU."""
    with subprocess.Popen([program, str(_WINDOW_S)], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        if watching.stdout.readline() != "ready\n":
            raise RuntimeError("nobody can come before all others here")
        meanwhile()
        return [int(line) for line in watching.stdout]


def _free(enforcement: Enforcement) -> None:
    """Take what is not in force out of its slot. RuntimeError if something else holds it."""
    old = 1 - enforcement.store.control().active
    with enforcement.store.slot(old) as view:
        image_id = view.image_id
    enforcement.store.clear_slot(old)
    try:
        with Map.from_id(image_id):
            raise RuntimeError("the old image is held by somebody")
    except BpfError:
        return


def _by_cpu(windows: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    columns = [[ns / 1000 for ns in column] for column in zip(*windows, strict=True)]
    return [
        {"lowest": round(min(us), 1), "median": round(median(us), 1), "highest": round(max(us), 1)} for us in columns
    ]
