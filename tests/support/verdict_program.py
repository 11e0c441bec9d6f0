# SPDX-License-Identifier: Apache-2.0
"""The verdict functions of the hooks, called through the test program: flows in, verdicts out, many a call.

The layout is bpf/verdict_test.bpf.h. Must not know policies or how labels come about.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cgnetd.datapath import abi
from cgnetd.kernel.features import Features
from cgnetd.kernel.maps import Capacity, specs
from cgnetd.kernel.store import Store
from cgnetd.policy.matching import UNIX
from cgnetd.policy.types import Flow, Hook, Protocol, SocketType
from pybpf import Object, Program, ProgType

_OFFSET = 16
_TEST = struct.Struct("=QQQQHHBBBBBBBBBBBBIIQQHB5x")
_NAME = struct.Struct(f"=I{abi.UNIX_NAME_BYTES}s")
_ASKED_FIELDS = 10
_V6_ONLY, _RAW, _INSIDE, _PLAIN = 1, 2, 4, 16
_HOOKS = {
    Hook.CONNECT: abi.HOOK_CONNECT,
    Hook.SENDMSG: abi.HOOK_SENDMSG,
    Hook.BIND: abi.HOOK_BIND,
    Hook.POST_BIND: abi.HOOK_POST_BIND,
    Hook.SOCKET: abi.HOOK_SOCKET,
    Hook.CREATE: abi.HOOK_CREATE,
}
_TYPES = {
    SocketType.STREAM: abi.TYPE_STREAM,
    SocketType.DGRAM: abi.TYPE_DGRAM,
    SocketType.RAW: abi.TYPE_RAW,
    SocketType.OTHER: abi.TYPE_OTHER,
}
_PROTOCOLS = {
    Protocol.TCP: abi.PROTO_TCP,
    Protocol.UDP: abi.PROTO_UDP,
    Protocol.UDPLITE: abi.PROTO_UDPLITE,
    Protocol.SCTP: abi.PROTO_SCTP,
    Protocol.ICMP: abi.PROTO_ICMP,
    Protocol.OTHER: abi.PROTO_OTHER,
}


class Asked(NamedTuple):
    """A flow, the task's cgroup id and the socket's (0: not asked)."""

    flow: Flow
    task_id: int
    socket_id: int = 0


class Verdict(NamedTuple):
    """`judged` is False where nothing governs; everything else is 0 then. `new_address` and `new_port` are those of a
    call that is `rewritten`; `new_name` that of a UNIX socket."""

    judged: bool
    denied: bool
    errno: int
    shadow_denied: bool
    by_socket: bool
    rewritten: bool
    shadow_rewritten: bool
    reason: int
    rule: int
    shadow_rule: int
    new_address: int = 0
    new_port: int = 0
    new_name: bytes = b""


class _Questions(NamedTuple):
    """One test program: what it is asked in, and how much of it at a time."""

    object_name: str
    size: int
    most: int


_CALLS = _Questions("verdict_test", _TEST.size, 32)
_NAMES = _Questions("name_test", _TEST.size + _NAME.size, 12)


class VerdictProgram:
    """The programs, loaded against a store's maps. Needs closing."""

    def __init__(self, store: Store, features: Features, object_dir: Path) -> None:
        with ExitStack() as undo:
            self._calls = undo.enter_context(_load(_CALLS, store, features, object_dir))
            self._names = undo.enter_context(_load(_NAMES, store, features, object_dir))
            self._stack = undo.pop_all()

    def ask(self, questions: Sequence[Asked]) -> list[Verdict]:
        """The verdict on each, from the slot in force, by the whole judgement; the plain one has to agree with it."""
        calls = iter(_ask(self._calls, _CALLS, [asked for asked in questions if asked.flow.family != UNIX]))
        names = iter(_ask(self._names, _NAMES, [asked for asked in questions if asked.flow.family == UNIX]))
        return [next(names if asked.flow.family == UNIX else calls) for asked in questions]

    def time(self, questions: Sequence[Asked], repeat: int) -> float:
        """Nanoseconds that a verdict takes, on average over `repeat` runs of at most 32 questions, not on names."""
        packet = bytes(_OFFSET) + b"".join(map(_pack, questions))
        return self._calls.test_run(packet, repeat=repeat).duration_ns / len(questions)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _load(questions: _Questions, store: Store, features: Features, object_dir: Path) -> Program:
    with Object(object_dir / f"{questions.object_name}.bpf.o") as opened:
        for spec in specs(Capacity()):
            if spec.name in opened.maps:
                opened.maps[spec.name].reuse(store.maps[spec.pin])
        opened.set_rodata(features.rodata())
        opened.programs[questions.object_name].set_type(ProgType.SCHED_CLS, 0)
        opened.load()
        return opened.programs[questions.object_name].open()


def _ask(program: Program, questions: _Questions, asked: Sequence[Asked]) -> list[Verdict]:
    answers: list[Verdict] = []
    for start in range(0, len(asked), questions.most):
        batch = asked[start : start + questions.most]
        data = program.test_run(bytes(_OFFSET) + b"".join(_pack(each, _PLAIN) for each in batch)).data
        answers += [_unpack(data, _OFFSET + n * questions.size, each.flow) for n, each in enumerate(batch)]
    return answers


def _pack(asked: Asked, also: int = 0) -> bytes:
    flow = asked.flow
    flags = (_V6_ONLY if flow.v6_only else 0) | (_RAW if flow.raw else 0) | _INSIDE | also
    high, low = flow.address >> 64, flow.address & (1 << 64) - 1
    proto = _TYPES[flow.type] if flow.hook is Hook.CREATE else _PROTOCOLS[flow.protocol]
    head = (asked.task_id, asked.socket_id, high, low, flow.port, 0, _HOOKS[flow.hook], flow.family, flags, proto)
    packed = _TEST.pack(*head, *[0] * 14)
    return packed + _NAME.pack(len(flow.name), flow.name) if flow.family == UNIX else packed


def _unpack(data: bytes, offset: int, flow: Flow) -> Verdict:
    told = _TEST.unpack_from(data, offset)[_ASKED_FIELDS:]
    judged, denied, errno, shadow_denied, by_socket, rewritten, shadow_rewritten, reason = told[:8]
    rule, shadow_rule, high, low, port, _ = told[8:]
    verdict = Verdict(
        judged=bool(judged),
        denied=bool(denied),
        errno=errno,
        shadow_denied=bool(shadow_denied),
        by_socket=bool(by_socket),
        rewritten=bool(rewritten),
        shadow_rewritten=bool(shadow_rewritten),
        reason=reason,
        rule=rule,
        shadow_rule=shadow_rule,
        new_address=high << 64 | low,
        new_port=port,
    )
    if flow.family != UNIX or not rewritten:
        return verdict
    length, name = _NAME.unpack_from(data, offset + _TEST.size)
    return verdict._replace(new_name=name[:length])
