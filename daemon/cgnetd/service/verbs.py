# SPDX-License-Identifier: Apache-2.0
"""The verbs of the control socket. Must not know how requests come in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from cgnetd import __version__
from cgnetd.errors import CgnetdError, PolicyError, PrivilegeError, UsageError
from cgnetd.kernel.flush import Flushed
from cgnetd.service.control import Answer, Outlet, problem_data
from cgnetd.service.daemon import Reload
from cgnetd.service.difference import difference
from cgnetd.service.events import FlowEvent, Record
from cgnetd.service.explain import explain
from cgnetd.service.peer import Peer
from cgnetd.service.question import parse_flow
from cgnetd.service.reconcile import Reconciler, policy_source
from cgnetd.service.report import PassReport
from cgnetd.service.sinks import REMEMBERED, EventLog
from cgnetd.service.status import status
from cgnetd.service.status_live import now_of

_WRITER_PATIENCE_S = 2.0  # how long a reload waits for those who have a policy file open for writing
_WRITER_POLL_S = 0.05
_RECENT_BEFORE_FOLLOWING = 200  # sent at once: must fit what may pile up for a follower

# What does not change anything is for whoever may use the socket, everything else for root.
_FOR_ALL = ("status", "diff", "explain", "events", "version")

Verb = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class Actions(Protocol):
    """What verbs set going; each is done, and the world told, when it returns."""

    def look(self, *, force: bool) -> PassReport: ...

    def reload(self) -> Reload: ...

    def flush(self) -> Flushed: ...

    def calls(self) -> Sequence[FlowEvent]: ...


class Verbs:
    """What each verb does. `counts`: of the daemon itself, for `status`."""

    def __init__(
        self, reconciler: Reconciler, log: EventLog, actions: Actions, counts: Mapping[str, Callable[[], int]]
    ) -> None:
        self._reconciler = reconciler
        self._log = log
        self._actions = actions
        self._counts = counts
        self._comparing = asyncio.Lock()
        self._verbs: dict[str, Verb] = {
            "status": self._status,
            "reload": self._reload,
            "diff": self._diff,
            "explain": self._explain,
            "events": self._events,
            "flush": self._flush,
            "version": self._version,
        }

    async def handle(self, verb: str, args: Mapping[str, Any], peer: Peer) -> Answer:
        """Perform one request. Raises UsageError for a verb that there is not, PrivilegeError for one that is not the
        peer's to ask for, CgnetdError for what cannot be done."""
        found = self._verbs.get(verb)
        if found is None:
            raise UsageError(f"perform {verb!r}: no such verb, accepted are {', '.join(self._verbs)}")
        if not peer.is_root:
            _permit(verb, args, peer)
        return await found(args)

    async def _version(self, _args: Mapping[str, Any]) -> Answer:
        return Answer({"version": __version__, "pid": os.getpid()})

    async def _status(self, _args: Mapping[str, Any]) -> Answer:
        if self._reconciler.unfinished:  # counters of the generation before are still to be carried over
            self._actions.look(force=False)
        service = {name: count() for name, count in self._counts.items()}
        return Answer(status(self._reconciler, service))

    async def _reload(self, _args: Mapping[str, Any]) -> Answer:
        done = self._actions.reload()
        report = done.report
        patience_s = _WRITER_PATIENCE_S
        while report.writing and patience_s > 0:
            await asyncio.sleep(_WRITER_POLL_S)
            patience_s -= _WRITER_POLL_S
            report = self._actions.look(force=True)
        if report.problems:
            raise PolicyError(report.problems)
        if report.error is not None:
            raise report.error
        running = self._reconciler.running
        return Answer(
            {
                "generation": running.number if running else 0,
                "changed": bool(report.loaded),
                "policies": report.policies,
                "steps": list(report.steps),
                "warnings": [problem_data(warning) for warning in (*report.degraded, *report.warnings)],
                "duration_ms": report.to_json()["duration_ms"],
                "settings_changed": list(done.settings.taken),
                "settings_waiting": list(done.settings.waiting),
            }
        )

    async def _diff(self, args: Mapping[str, Any]) -> Answer:
        directories = args.get("policy_dirs", list(self._reconciler.settings.policy_dirs))
        if not _are_paths(directories):
            raise UsageError(f"diff: policy_dirs {directories!r} is no list of absolute paths")
        # Reading and compiling takes long; what is in force must not wait for it, nor pay for many at once.
        settings = self._reconciler.settings.model_copy(update={"policy_dirs": tuple(directories)})
        async with self._comparing:
            asked = await asyncio.to_thread(policy_source(settings, self._reconciler.features).look)
        return Answer(difference(self._reconciler, asked, self._actions.calls()))

    async def _explain(self, args: Mapping[str, Any]) -> Answer:
        running = self._reconciler.running
        if running is None:
            raise CgnetdError("explain: nothing is in force; see cgnetctl status")
        path = self._subject_path(args)
        flow = parse_flow(args)
        label = self._reconciler.label_of_path(path)
        now = now_of(self._reconciler)
        return Answer({"cgroup": path, **explain(running.reader, running.index, label, flow, now)})

    def _subject_path(self, args: Mapping[str, Any]) -> str:
        cgroup, pid = args.get("cgroup"), args.get("pid")
        if isinstance(cgroup, str) and cgroup.startswith("/") and pid is None and _is_file_name(cgroup):
            return cgroup.rstrip("/") or "/"
        if isinstance(pid, int) and not isinstance(pid, bool) and cgroup is None:
            path = self._reconciler.root.pid_path(pid)
            if path is None:
                raise UsageError(f"explain: process {pid} is gone, or not below the cgroup root")
            return path
        raise UsageError("explain: accepted is either cgroup, a path that begins with /, or pid, a number")

    async def _events(self, args: Mapping[str, Any]) -> Answer:
        count, follow = args.get("count"), args.get("follow", False)
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
            raise UsageError(f"events: count {count!r} is not a number from 0")
        if not isinstance(follow, bool):
            raise UsageError(f"events: follow {follow!r} is neither true nor false")
        wanted = (0 if follow else REMEMBERED) if count is None else count
        recent = self._log.recent(min(wanted, _RECENT_BEFORE_FOLLOWING) if follow else wanted)

        async def stream(outlet: Outlet) -> None:
            await self._send_events(outlet, recent, follow=follow)

        return Answer({"events": len(recent), "follow": follow}, stream)

    async def _send_events(self, outlet: Outlet, recent: Sequence[Record], *, follow: bool) -> None:
        def send(records: Sequence[Record]) -> None:
            for record in records:
                if not outlet.send(record.to_json()):
                    return

        if not follow:
            for record in recent:
                send([record])
                await outlet.drain()
            return
        send(recent)  # without a pause before following, so that none is missed
        unfollow = self._log.follow(send)
        try:
            await outlet.closed()
        finally:
            unfollow()

    async def _flush(self, _args: Mapping[str, Any]) -> Answer:
        removed = self._actions.flush()
        return Answer({"links": list(removed.links), "maps": removed.maps, "left": list(removed.left)})


def _permit(verb: str, args: Mapping[str, Any], peer: Peer) -> None:
    """PrivilegeError for what only root may ask for."""
    if verb not in _FOR_ALL:
        allowed = ", ".join(_FOR_ALL)
        raise PrivilegeError(f"{verb}: only root may; you are user {peer.uid}, who may ask for {allowed}")
    if "policy_dirs" in args:  # what is wrong with a file can tell what stands in it
        text = f"{verb}: only root may have the daemon read other directories than its own; you are user {peer.uid}"
        raise PrivilegeError(text)


def _are_paths(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(p, str) and os.path.isabs(p) for p in value)


def _is_file_name(text: str) -> bool:
    """Whether bytes of a file system can be meant: half a surrogate pair is none."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
