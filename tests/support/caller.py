# SPDX-License-Identifier: Apache-2.0
"""Talks to the agent: starts one for a case file and has it make the calls. Must not know verdicts."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import agent, libc
from support.cases import Call, CaseFile, Endpoint

_TESTS_PATH = Path(__file__).parent.parent
Server = tuple[str, str, int]  # kind (support/servers.py), address or name, port
_PRESENT = {"127.0.0.1", "0.0.0.0", "::", "::1"}


class Caller:
    """One agent in a network namespace of its own, whose cookie is `netns` and whose loopback has `addresses`."""

    def __init__(
        self,
        root_path: Path,
        addresses: Sequence[str],
        listeners: Sequence[tuple[str, int]] = (),
        servers: Sequence[Server] = (),
        servers_cgroup: str | None = None,
    ) -> None:
        self._root = root_path
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.agent"],
            cwd=_TESTS_PATH,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        place = servers_cgroup and self._path(servers_cgroup)
        setting = {"addresses": addresses, "listeners": listeners, "servers": servers, "servers_cgroup": place}
        ready = self._exchange(setting)
        self.netns = int(ready["netns"])

    @classmethod
    def of(cls, case_file: CaseFile, root_path: Path) -> Self:
        """With the addresses, listeners and servers that the calls of a case file need."""
        return cls(root_path, _addresses(case_file), _listeners(case_file), _servers(case_file), case_file.servers)

    def call(self, call: Call) -> int:
        """Make the call: 0 or the errno it got. RuntimeError if the calling process died."""
        return self.make(call)[0]

    def make(self, call: Call) -> tuple[int, dict[str, str]]:
        """Make the call and look at its socket (support/views.py): what `call` returns, and what was seen."""
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
                "reaches": call.reaches and _wire(call.reaches),
                "isolate": call.isolate,
                "passing": call.passing,
                "cgroup": self._path(call.cgroup),
                "socket_cgroup": call.socket_cgroup and self._path(call.socket_cgroup),
            }
        )
        if answer["errno"] == agent.KILLED:
            raise RuntimeError(f"{call.name}: the calling process died")
        return int(answer["errno"]), answer.get("seen", {})

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
    if to.is_name:
        return (struct.pack("=H", socket.AF_UNIX) + os.fsencode(to.host.replace("@", "\0", 1))).hex()
    return libc.sockaddr(to.host, to.port, to.form).hex()


def _addresses(case_file: CaseFile) -> list[str]:
    """Every unicast address that a call names, to be given to the loopback device; of a call that goes elsewhere only
    where it goes and what it comes from."""
    named = [e.host for c in case_file.calls for e in _places(c) if not e.is_name]
    named += [c.pktinfo for c in case_file.calls if c.pktinfo]
    named += [value for c in case_file.calls for key, value in c.shows if key == "source" and _is_address(value)]
    plain = {host.partition("%")[0].removeprefix("::ffff:") for host in named}
    return sorted(host for host in plain - _PRESENT if not host.startswith(("224.", "ff02:", "127.")))


def _places(call: Call) -> Iterator[Endpoint]:
    """Where somebody or something of a call must be able to be."""
    if call.reaches is not None:
        yield call.reaches
        return
    yield from (place for place in (*call.to, call.first, call.source) if place is not None)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _servers(case_file: CaseFile) -> list[Server]:
    """Who answers where calls are to arrive."""
    kinds = {"unix-stream", "unix-dgram"}
    return sorted(
        {
            (
                call.via if call.via in kinds else call.via.rstrip("46"),
                call.reaches.host.removeprefix("::ffff:"),
                call.reaches.port,
            )
            for call in case_file.calls
            if call.reaches and "bind" not in call.call
        }
    )


def _listeners(case_file: CaseFile) -> list[tuple[str, int]]:
    """Where allowed TCP connections must find somebody."""
    connects = {"connect", "fast-open", "fast-open-connect", "io-uring-connect", "sqpoll-connect"}
    wanted = set()
    for call in case_file.calls:
        if call.expect == 0 and not call.network and not call.reaches and "tcp" in call.via and call.call in connects:
            wanted.add((call.to[0].host.removeprefix("::ffff:"), call.to[0].port))
    return sorted(wanted)
