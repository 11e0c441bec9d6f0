# SPDX-License-Identifier: Apache-2.0
"""Talks to the agent: starts one for a case file and has it make the calls. Must not know verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import agent, libc
from support.cases import Call, CaseFile, Endpoint

_TESTS_PATH = Path(__file__).parent.parent
_PRESENT = {"127.0.0.1", "0.0.0.0", "::", "::1"}


class Caller:
    """One agent in a network namespace of its own, whose loopback device has `addresses`."""

    def __init__(self, root_path: Path, addresses: Sequence[str], listeners: Sequence[tuple[str, int]] = ()) -> None:
        self._root = root_path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.agent"],
            cwd=_TESTS_PATH,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._exchange({"addresses": addresses, "listeners": listeners})

    @classmethod
    def of(cls, case_file: CaseFile, root_path: Path) -> Self:
        """With the addresses and listeners that the calls of a case file need."""
        return cls(root_path, _addresses(case_file), _listeners(case_file))

    def call(self, call: Call) -> int:
        """Make the call: 0 or the errno it got. RuntimeError if the calling process died."""
        answer = self._exchange(
            {
                "call": call.call,
                "via": call.via,
                "to": [_wire(to) for to in call.to],
                "first": call.first and _wire(call.first),
                "source": call.source and _wire(call.source),
                "options": call.options,
                "device": call.device,
                "pktinfo": call.pktinfo,
                "isolate": call.isolate,
                "passing": call.passing,
                "cgroup": self._path(call.cgroup),
                "socket_cgroup": call.socket_cgroup and self._path(call.socket_cgroup),
            }
        )["errno"]
        if answer == agent.KILLED:
            raise RuntimeError(f"{call.name}: the calling process died")
        return int(answer)

    def _path(self, cgroup: str) -> str:
        return f"{self._root}{cgroup.rstrip('/')}"

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"errno": -1}')
        return answer

    def close(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _wire(to: Endpoint) -> str:
    """The only device is "lo", whose index is the same in every network namespace."""
    return libc.sockaddr(to.host, to.port, to.form).hex()


def _addresses(case_file: CaseFile) -> list[str]:
    """Every unicast address that a call names, to be given to the loopback device."""
    named = [e.host for c in case_file.calls for e in (*c.to, c.first, c.source) if e]
    named += [c.pktinfo for c in case_file.calls if c.pktinfo]
    plain = {host.partition("%")[0].removeprefix("::ffff:") for host in named}
    return sorted(host for host in plain - _PRESENT if not host.startswith(("224.", "ff02:", "127.")))


def _listeners(case_file: CaseFile) -> list[tuple[str, int]]:
    """Where allowed TCP connections must find somebody."""
    connects = {"connect", "fast-open", "fast-open-connect", "io-uring-connect", "sqpoll-connect"}
    wanted = set()
    for call in case_file.calls:
        if call.expect == 0 and not call.network and "tcp" in call.via and call.call in connects:
            wanted.add((call.to[0].host.removeprefix("::ffff:"), call.to[0].port))
    return sorted(wanted)
