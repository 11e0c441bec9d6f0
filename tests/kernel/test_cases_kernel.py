# SPDX-License-Identifier: Apache-2.0
"""Every call of every case file, made for real: real sockets, real cgroups, the real programs.

Each file is put in force twice: with its cgroups there before (labelled from user space), and with its cgroups made
after (labelled by the kernel alone).
"""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cgnetd.kernel.features import COSTS, Features
from support import sandbox
from support.caller import Caller
from support.calls import KINDS
from support.cases import Call, CaseFile, load_all
from support.enforce import Enforcement
from support.judge import Compiled, place_of, ref_name

FILES = load_all()


class Scene:
    """One case file in force, and somebody to make its calls."""

    def __init__(self, case_file: CaseFile, labelled_by: str, root: Path, pin_dir: Path, objects: Path) -> None:
        self.image = Compiled(case_file).image
        self._stack = ExitStack()
        if labelled_by == "daemon":
            make_cgroups(case_file, root)
        self._enforcement = self._stack.enter_context(Enforcement(root, pin_dir, objects))
        self._enforcement.load(self.image)
        if labelled_by == "kernel":
            make_cgroups(case_file, root)
        self.caller = self._stack.enter_context(Caller.of(case_file, root))
        self._enforcement.store.set_netns(self.caller.netns)

    def counted(self) -> Counter[tuple[str, int]]:
        """Calls so far by (rule, kind); rules of the same name in both sections of a policy are one."""
        counted: Counter[tuple[str, int]] = Counter()
        with self._enforcement.slot() as slot:
            for at, count in enumerate(slot.totals()):
                counted[ref_name(self.image.index, at // 2), at % 2] += count
        return counted

    def close(self) -> None:
        self._stack.close()


def make_cgroups(case_file: CaseFile, root: Path) -> None:
    for path in case_file.cgroups():
        (root / path.lstrip("/")).mkdir(exist_ok=True)


class Stage:
    """Holds one scene at a time: tests come in the order of their files."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects
        self._stack = ExitStack()
        self._current: tuple[str, str] | None = None
        self._scene: Scene | None = None

    def scene(self, case_file: CaseFile, labelled_by: str) -> Scene:
        if self._scene is None or self._current != (case_file.name, labelled_by):
            self.close()
            root = self._stack.enter_context(sandbox.cgroup()).path
            pins = self._stack.enter_context(sandbox.bpffs_mount()) / "cgnetd"
            self._scene = Scene(case_file, labelled_by, root, pins, self._objects)
            self._stack.callback(self._scene.close)
            self._current = (case_file.name, labelled_by)
        return self._scene

    def close(self) -> None:
        self._scene = None
        self._stack.close()


@pytest.fixture(scope="module")
def stage(objects: Path) -> Iterator[Stage]:
    if shutil.which("ip") is None:
        pytest.skip("no ip command; install it: apt-get install iproute2")
    made = Stage(objects)
    yield made
    made.close()


def _every_call() -> Iterator[object]:
    for case_file in FILES:
        for labelled_by in ("daemon", "kernel"):
            for call in case_file.calls:
                yield pytest.param(case_file, labelled_by, call, id=f"{call.name}-{labelled_by}")


def check_views(call: Call, seen: dict[str, str]) -> None:
    """What was seen of the socket is what the case says; an address without a port stands for any port."""
    if call.reaches is not None:
        assert plain(seen["at"]) == place_of(call.reaches)
    for name, wanted in call.shows:
        found = seen[name]
        assert wanted in (found, found.rpartition(":")[0].strip("[]")), (name, seen)


def plain(text: str) -> str:
    """An IPv4-mapped address as IPv4."""
    return text.removeprefix("[::ffff:").replace("]:", ":") if text.startswith("[::ffff:") else text


@pytest.mark.parametrize(("case_file", "labelled_by", "call"), list(_every_call()))
def test_call_gets_its_verdict(
    stage: Stage, kernel_features: Features, case_file: CaseFile, labelled_by: str, call: Call
) -> None:
    if KINDS[call.via][0] == socket.AF_UNIX and call.rule and not kernel_features.unix_hooks:
        pytest.skip(COSTS["unix_hooks"])
    scene = stage.scene(case_file, labelled_by)
    before = scene.counted()
    got, seen = scene.caller.make(call)
    after = scene.counted()
    assert got in ((call.expect,) if call.expect or not call.network else call.network)
    if got == 0:
        check_views(call, seen)
    rose = {key for key, count in after.items() if count > before[key]}
    if call.rule is not None:
        assert (call.rule, 0) in rose
    if call.shadow_rule not in (None, call.rule):
        assert (call.shadow_rule, 1) in rose
