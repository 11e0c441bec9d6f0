# SPDX-License-Identifier: Apache-2.0
"""The verdict functions of the hooks, called through the test program: flows in, verdicts out, many a call.

The layout is bpf/verdict_test.bpf.h. Must not know policies or how labels come about.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cgnetd.datapath import abi
from cgnetd.kernel.features import Features
from cgnetd.kernel.maps import Capacity, specs
from cgnetd.kernel.store import Store
from cgnetd.policy.types import Flow, Hook, Protocol
from pybpf import Object, Program, ProgType

_OFFSET = 16
_MOST = 32
_TEST = struct.Struct("=QQQQHHBBBBBBBBB3xII")
_V6_ONLY, _RAW, _INSIDE = 1, 2, 4
_HOOKS = {
    Hook.CONNECT: abi.HOOK_CONNECT,
    Hook.SENDMSG: abi.HOOK_SENDMSG,
    Hook.BIND: abi.HOOK_BIND,
    Hook.POST_BIND: abi.HOOK_POST_BIND,
    Hook.SOCKET: abi.HOOK_SOCKET,
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
    """`judged` is False where nothing governs; everything else is 0 then."""

    judged: bool
    denied: bool
    errno: int
    shadow_denied: bool
    by_socket: bool
    rule: int
    shadow_rule: int


class VerdictProgram:
    """The program, loaded against a store's maps. Needs closing."""

    def __init__(self, store: Store, features: Features, object_dir: Path) -> None:
        with Object(object_dir / "verdict_test.bpf.o") as opened:
            for spec in specs(Capacity()):
                if spec.name in opened.maps:
                    opened.maps[spec.name].reuse(store.maps[spec.pin])
            opened.set_rodata(features.rodata())
            opened.programs["verdict_test"].set_type(ProgType.SCHED_CLS, 0)
            opened.load()
            self._program: Program = opened.programs["verdict_test"].open()

    def ask(self, questions: Sequence[Asked]) -> list[Verdict]:
        """The verdict on each, from the slot in force."""
        answers: list[Verdict] = []
        for start in range(0, len(questions), _MOST):
            batch = questions[start : start + _MOST]
            packet = bytes(_OFFSET) + b"".join(map(_pack, batch))
            data = self._program.test_run(packet).data
            answers += [_unpack(data, _OFFSET + n * _TEST.size) for n in range(len(batch))]
        return answers

    def time(self, questions: Sequence[Asked], repeat: int) -> float:
        """Nanoseconds that a verdict takes, on average over `repeat` runs of at most 32 questions."""
        packet = bytes(_OFFSET) + b"".join(map(_pack, questions))
        return self._program.test_run(packet, repeat=repeat).duration_ns / len(questions)

    def close(self) -> None:
        self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _pack(asked: Asked) -> bytes:
    flow = asked.flow
    flags = (_V6_ONLY if flow.v6_only else 0) | (_RAW if flow.raw else 0) | _INSIDE
    high, low = flow.address >> 64, flow.address & (1 << 64) - 1
    proto = _PROTOCOLS[flow.protocol]
    head = (asked.task_id, asked.socket_id, high, low, flow.port, 0, _HOOKS[flow.hook], flow.family, flags, proto)
    return _TEST.pack(*head, 0, 0, 0, 0, 0, 0, 0)


def _unpack(data: bytes, offset: int) -> Verdict:
    judged, denied, errno, shadow_denied, by_socket, rule, shadow_rule = _TEST.unpack_from(data, offset)[10:]
    return Verdict(bool(judged), bool(denied), errno, bool(shadow_denied), bool(by_socket), rule, shadow_rule)
