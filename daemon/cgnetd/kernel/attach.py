# SPDX-License-Identifier: Apache-2.0
"""The pinned links: what is attached, what should be, and the steps between. Must not know policies or generations.

Nothing is remembered: each look reads the kernel. A link is put in place in one step, so no call finds no program.
Links that were seen right are kept open, so that a deleted pin detaches nothing: the same link is pinned again.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cgnetd.errors import CgnetdError, KernelError
from cgnetd.kernel import bpffs
from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.conflicts import holder
from cgnetd.kernel.failure import kernel_error
from cgnetd.kernel.hooks import HOOKS, Hook
from cgnetd.kernel.pins import LINKS, NEW, pin_over
from cgnetd.kernel.programs import Programs, attached_signature
from cgnetd.kernel.store import Store
from pybpf import BpfError, Link, LinkInfo, LinkType


class LinkState(enum.Enum):
    OK = "ok"
    MISSING = "missing pin"
    DEAD = "detached"  # by somebody, or its cgroup is gone
    WRONG_CGROUP = "attached to another cgroup"
    WRONG_HOOK = "attached to another hook"
    WRONG_PROGRAM = "another program is attached"
    NOT_A_LINK = "something else is pinned"


@dataclass(frozen=True, slots=True)
class Observed:
    """One hook as it is now; ids are 0 where there is no link."""

    name: str
    state: LinkState
    link_id: int = 0
    prog_id: int = 0

    @property
    def ok(self) -> bool:
        return self.state is LinkState.OK


class Attachments:
    """The links of one managed root. Closing detaches nothing that is pinned."""

    def __init__(self, store: Store, root: CgroupRoot, programs: Programs) -> None:
        self._directory = store.pin_dir / LINKS
        self._root = root
        self._programs = programs
        self._held: dict[str, Link] = {}

    def pinned(self) -> frozenset[str]:
        """Names of our hooks that have a pin, whatever its state."""
        try:
            return frozenset(path.name for path in self._directory.iterdir() if path.name in HOOKS)
        except FileNotFoundError:
            return frozenset()

    def observe(self, names: Iterable[str]) -> dict[str, Observed]:
        """The state of these hooks. Loads the programs to compare with, once. KernelError, PrivilegeError."""
        asked = frozenset(names)
        wanted = [name for name in HOOKS if name in asked]
        pinned = self.pinned()
        self._programs.learn(name for name in wanted if name in pinned)
        try:
            return {name: self._observe(HOOKS[name]) for name in wanted}
        except OSError as error:
            raise kernel_error("observe links", error) from error

    def _observe(self, hook: Hook) -> Observed:
        try:
            link = Link.from_pin(self._directory / hook.name)
        except BpfError as error:
            if error.errno == errno.EINVAL:
                return Observed(hook.name, LinkState.NOT_A_LINK)
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return Observed(hook.name, LinkState.MISSING)
            raise
        info = link.info()
        state = self._state(hook, info)
        if state is LinkState.OK:
            self._hold(hook.name, link)
        else:
            link.close()
        return Observed(hook.name, state, info.id, info.prog_id)

    def _hold(self, name: str, link: Link) -> None:
        self._let_go(name)
        self._held[name] = link

    def _let_go(self, name: str) -> None:
        if held := self._held.pop(name, None):
            held.close()

    def _is_right(self, hook: Hook, link: Link) -> bool:
        return self._state(hook, link.info()) is LinkState.OK

    def _state(self, hook: Hook, info: LinkInfo) -> LinkState:
        place = _tracepoint_state(hook, info) if hook.tracepoint else self._cgroup_state(hook, info)
        if place is not LinkState.OK:
            return place
        same = attached_signature(info.prog_id) == self._programs.signature(hook.name)
        return LinkState.OK if same else LinkState.WRONG_PROGRAM

    def _cgroup_state(self, hook: Hook, info: LinkInfo) -> LinkState:
        if info.type != LinkType.CGROUP:
            return LinkState.WRONG_HOOK
        if not info.cgroup_id:
            return LinkState.DEAD
        if info.cgroup_id != self._root.id:
            return LinkState.WRONG_CGROUP
        return LinkState.OK if info.attach_type == hook.attach_type else LinkState.WRONG_HOOK

    def attached(self) -> dict[str, int]:
        """Ids of our programs on cgroups, by hook: those that were right when they were looked at and still are there.
        KernelError."""
        try:
            infos = {name: link.info() for name, link in self._held.items() if not HOOKS[name].tracepoint}
        except OSError as error:
            raise kernel_error("look at links", error) from error
        return {name: info.prog_id for name, info in infos.items() if info.cgroup_id == self._root.id}

    def attach(self, names: Iterable[str]) -> tuple[Observed, ...]:
        """Make these hooks right, in the order of attaching. Returns what was wrong with those that were not.

        Every program that is needed is loaded before the first link changes. KernelError, PrivilegeError: those already
        made right stay so.
        """
        wrong = tuple(seen for seen in self.observe(names).values() if not seen.ok)
        self._programs.load(seen.name for seen in wrong)
        bpffs.make_dir(self._directory)
        for seen in wrong:
            try:
                self._mend(HOOKS[seen.name], seen)
            except OSError as error:
                raise self._refused(HOOKS[seen.name], error) from error
        self._programs.release()
        return wrong

    def _refused(self, hook: Hook, error: OSError) -> CgnetdError:
        """Who holds the hook, if that is why."""
        if error.errno == errno.EPERM and not hook.tracepoint:
            with suppress(OSError):
                if held := holder(self._root, hook.name):
                    return KernelError(held.text)
        return kernel_error(f"attach {hook.name} to {self._place(hook)}", error)

    def _mend(self, hook: Hook, seen: Observed) -> None:
        path = self._directory / hook.name
        held = self._held.get(hook.name)
        if held and self._is_right(hook, held):
            pin_over(held, path)
            return
        program = self._programs.program(hook.name)
        if seen.state is LinkState.WRONG_PROGRAM and not hook.tracepoint:
            with Link.from_pin(path) as link:
                link.update(program)
            return
        # A raw tracepoint link has no update: the new one is attached before the old one goes with its last holder.
        if hook.tracepoint:
            fresh = Link.attach_raw_tracepoint(program)
        else:
            fresh = Link.attach_cgroup(program, self._root.fd, hook.attach_type)
        try:
            pin_over(fresh, path)
        except BaseException:
            fresh.close()
            raise
        self._hold(hook.name, fresh)

    def _place(self, hook: Hook) -> str:
        return f"tracepoint {hook.tracepoint}" if hook.tracepoint else str(self._root.path)

    def detach(self, names: Iterable[str]) -> tuple[str, ...]:
        """Detach these hooks, last attached first; absent ones are fine. Returns the names that were there."""
        asked = frozenset(names)
        wanted = [name for name in reversed(HOOKS) if name in asked]
        gone = tuple(name for name in wanted if remove_link(self._directory / name))
        for name in wanted:
            self._let_go(name)
        return gone

    def held(self) -> Mapping[str, int]:
        """Descriptors of the links that were seen right, by hook; they stay this object's."""
        return {name: link.fd for name, link in self._held.items()}

    def close(self) -> None:
        for name in tuple(self._held):
            self._let_go(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tracepoint_state(hook: Hook, info: LinkInfo) -> LinkState:
    right = info.type == LinkType.RAW_TRACEPOINT and info.tracepoint == hook.tracepoint
    return LinkState.OK if right else LinkState.WRONG_HOOK


def remove_link(path: Path) -> bool:
    """Detach and unpin. Whoever else holds the link holds a dead one then. False if nothing was pinned."""
    path.with_name(NEW + path.name).unlink(missing_ok=True)
    try:
        with Link.from_pin(path) as link:
            if link.info().type == LinkType.CGROUP:
                link.detach()
    except BpfError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        if error.errno != errno.EINVAL:
            raise kernel_error(f"detach {path.name}", error) from error
    path.unlink(missing_ok=True)
    return True
