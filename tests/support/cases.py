# SPDX-License-Identifier: Apache-2.0
"""The model of a case file: a policy set, and calls with the verdict each must get.

`tests/cases/README.md` describes the format. Must not know how a verdict is found (evaluate, image or kernel).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from support.calls import CALLS, KINDS

CASES_PATH = Path(__file__).parent.parent / "cases"
_FILE_KEYS = {"about", "default_action", "policies", "sets", "from", "servers", "calls"}
_PASSING = ("scm", "pidfd", "moved")
VIEWS = {"peer", "so_peername", "local", "reply", "accepted", "source", "original", "mark", "priority", "device"}


class _QuotingDumper(yaml.SafeDumper):
    """Quotes every string, so that none can be taken for a number."""


_QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A socket address as a case writes it; `form` as in `libc.sockaddr`. UNIX: `host` is the name, "@" for NUL."""

    host: str
    port: int
    form: str = "auto"

    @property
    def is_name(self) -> bool:
        return self.host.startswith(("@", "/"))


@dataclass(frozen=True, slots=True)
class Call:
    """One call and what must come of it. Errors are positive numbers; 0 stands for allow."""

    name: str
    cgroup: str
    call: str
    via: str
    to: tuple[Endpoint, ...]
    expect: int
    network: tuple[int, ...]  # what the network itself may answer to an allowed call
    first: Endpoint | None
    source: Endpoint | None
    socket_cgroup: str | None
    passing: str
    options: tuple[str, ...]
    isolate: tuple[str, ...]
    device: str | None
    pktinfo: str | None
    rule: str | None
    shadow: int | None
    shadow_rule: str | None
    rows: tuple[str, ...]
    reaches: Endpoint | None = None  # where the call really goes
    shows: tuple[tuple[str, str], ...] = ()  # what is seen of the socket afterwards


@dataclass(frozen=True, slots=True)
class CaseFile:
    name: str
    policies: bytes  # YAML documents
    default_action: str
    sets: dict[str, bytes] = field(hash=False)
    calls: tuple[Call, ...]
    servers: str | None = None  # the cgroup of those who are reached; None: outside

    def cgroups(self) -> list[str]:
        """Every cgroup that is named, parents before children, without the root."""
        named = {c for call in self.calls for c in (call.cgroup, call.socket_cgroup, self.servers) if c}
        return sorted({ancestor for path in named for ancestor in _ancestors(path)})


def _ancestors(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")
    return ("/" + "/".join(parts[: n + 1]) for n in range(len(parts)) if parts[0])


def load_all() -> list[CaseFile]:
    """Every case file, by name. Raises ValueError for a key or a word that means nothing."""
    return [load(path) for path in sorted(CASES_PATH.glob("*.yaml"))]


def load(path: Path) -> CaseFile:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if unknown := set(data) - _FILE_KEYS:
        raise ValueError(f"{path.name}: unknown keys {sorted(unknown)}")
    documents = [{"apiVersion": "cgnetd/v1", "kind": "Policy", **doc} for doc in data["policies"]]
    calls = [_call(path.stem, number, data.get("from"), dict(item)) for number, item in enumerate(data["calls"], 1)]
    return CaseFile(
        name=path.stem,
        policies=yaml.dump_all(documents, Dumper=_QuotingDumper, sort_keys=False).encode(),
        default_action=data.get("default_action", "allow"),
        sets={name: text.encode() for name, text in data.get("sets", {}).items()},
        calls=tuple(calls),
        servers=data.get("servers"),
    )


def _call(file: str, number: int, cgroup: str | None, item: dict[str, Any]) -> Call:
    cgroup = item.pop("from", cgroup)
    call, via, form = item.pop("call"), item.pop("via"), item.pop("sockaddr", "auto")
    targets = item.pop("to", [])
    to = tuple(_endpoint(t, form) for t in ([targets] if isinstance(targets, str) else targets))
    expect, shadow = item.pop("expect"), item.pop("shadow", None)
    network = item.pop("network", [])
    rows = item.pop("row", [])
    first, source, reaches = (item.pop(key, None) for key in ("first", "source", "reaches"))
    shows = {key: str(value) for key, value in item.pop("shows", {}).items()}
    made = Call(
        name=f"{file}-{number:02}-{call}-{via}-{expect}",
        cgroup=cgroup or "/",
        call=call,
        via=via,
        to=to,
        expect=_errno(expect),
        network=tuple(_errno(n) for n in ([network] if isinstance(network, str) else network)),
        first=_endpoint(first) if first else None,
        source=_endpoint(source) if source else None,
        socket_cgroup=item.pop("socket", None),
        passing=item.pop("passing", "scm"),
        options=tuple(item.pop("options", ())),
        isolate=tuple(item.pop("isolate", ())),
        device=item.pop("device", None),
        pktinfo=item.pop("pktinfo", None),
        rule=item.pop("rule", None),
        shadow=None if shadow is None else _errno(shadow),
        shadow_rule=item.pop("shadow_rule", None),
        rows=tuple([rows] if isinstance(rows, str) else rows),
        reaches=_endpoint(reaches) if reaches else None,
        shows=tuple(shows.items()),
    )
    item.pop("note", None)
    if item or call not in CALLS or via not in KINDS or made.passing not in _PASSING or shows.keys() - VIEWS:
        raise ValueError(f"{made.name}: unknown keys {sorted(item)} or call, via, passing, shows")
    return made


def _endpoint(text: str, form: str = "auto") -> Endpoint:
    if text.startswith(("@", "/")):
        return Endpoint(text, 0)
    host, _, port = text.rpartition(":")
    return Endpoint(host.strip("[]"), int(port), form)


def _errno(name: str) -> int:
    return 0 if name == "allow" else int(getattr(errno, name))
