# SPDX-License-Identifier: Apache-2.0
"""Our programs: loaded from the object files against the store's maps, and recognised when attached.

Must not know links. Which program is attached is found out by what it is (its instructions, its maps, what it was told
of the kernel), never by who attached it: a daemon that starts again finds its own programs this way.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.errors import KernelError
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.features import Features
from cgnetd.kernel.hooks import HOOKS, Hook
from cgnetd.kernel.maps import Capacity, check_object, specs
from cgnetd.kernel.store import Store
from pybpf import BpfError, Map, Object, Program

OBJECT_DIR = Path(__file__).with_name("objects")

_RODATA = ".rodata"
_SHARED = frozenset(spec.name for spec in specs(Capacity()))


@dataclass(frozen=True, slots=True)
class Signature:
    """What makes two programs the same: `map_ids` are those of our pinned maps, `rodata` what the load set for them.

    Maps that an object has for itself alone are other ones at each load, and tell nothing.
    """

    tag: bytes
    map_ids: frozenset[int]
    rodata: bytes


def signature(program: Program) -> Signature:
    """BpfError if one of its maps cannot be read."""
    ours = set()
    rodata = b""
    for map_id in program.info.map_ids:
        with Map.from_id(map_id) as used:
            if used.info.name in _SHARED:
                ours.add(map_id)
            elif used.info.name.endswith(_RODATA):
                rodata = used.lookup(bytes(4)) or b""
    return Signature(program.info.tag, frozenset(ours), rodata)


class Programs:
    """Programs by hook name, loaded when asked for. Signatures outlive `release`: observing loads nothing twice."""

    def __init__(self, store: Store, features: Features, object_dir: Path = OBJECT_DIR) -> None:
        self._store = store
        self._rodata = features.rodata()
        self._object_dir = object_dir
        self._loaded: dict[str, Program] = {}
        self._signatures: dict[str, Signature] = {}

    def load(self, names: Iterable[str]) -> None:
        """Load those that are not loaded. KernelError carries the verifier's last words."""
        wanted: dict[str, list[Hook]] = {}
        for name in names:
            if name not in self._loaded:
                wanted.setdefault(HOOKS[name].object, []).append(HOOKS[name])
        for object_name, hooks in wanted.items():
            self._load_object(self._object_dir / f"{object_name}.bpf.o", hooks)

    def program(self, name: str) -> Program:
        self.load([name])
        return self._loaded[name]

    def learn(self, names: Iterable[str]) -> None:
        """Know the signatures of these: what is not known is loaded once and let go."""
        unknown = [name for name in names if name not in self._signatures]
        if unknown:
            self.load(unknown)
            self.release()

    def signature(self, name: str) -> Signature:
        """Of the program that belongs to a hook."""
        self.learn([name])
        return self._signatures[name]

    def _load_object(self, path: Path, hooks: list[Hook]) -> None:
        names = ", ".join(hook.name for hook in hooks)
        if not path.is_file():
            raise KernelError(f"load programs {names}: {path} is missing; build it: make bpf")
        try:
            with Object(path) as opened, ExitStack() as undo:
                self._adjust(opened, path, hooks)
                opened.load()
                loaded = {hook.name: undo.enter_context(opened.programs[hook.name].open()) for hook in hooks}
                signatures = {name: signature(program) for name, program in loaded.items()}
                undo.pop_all()
        except OSError as error:
            raise kernel_error(f"load programs {names} from {path}", error) from error
        self._loaded.update(loaded)
        self._signatures.update(signatures)

    def _adjust(self, opened: Object, path: Path, hooks: list[Hook]) -> None:
        missing = [hook.name for hook in hooks if hook.name not in opened.programs]
        if missing:
            raise KernelError(f"load programs from {path}: it has no {', '.join(missing)}; build it again: make bpf")
        by_name = {hook.name: hook for hook in hooks}
        for name, program in opened.programs.items():
            program.set_autoload(name in by_name)
            if name in by_name:
                program.set_type(by_name[name].prog_type, by_name[name].attach_type)
        use_maps(opened, path, self._store)
        opened.set_rodata(self._rodata)

    def release(self) -> None:
        """Let go of the loaded programs; attached ones stay attached."""
        for program in self._loaded.values():
            program.close()
        self._loaded.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def use_maps(opened: Object, path: Path, store: Store) -> None:
    """Let an object that is not loaded yet use the store's maps. KernelError if it was built for other ones."""
    for spec in specs(Capacity()):
        if spec.name in opened.maps:
            check_object(spec, opened.maps[spec.name], path)
            opened.maps[spec.name].reuse(store.maps[spec.pin])


def attached_signature(prog_id: int) -> Signature | None:
    """Of a program in the kernel, None if it is gone."""
    try:
        with Program.from_id(prog_id) as program:
            return signature(program)
    except BpfError:
        return None
