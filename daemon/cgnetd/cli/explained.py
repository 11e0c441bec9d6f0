# SPDX-License-Identifier: Apache-2.0
"""The answer of `explain` as lines for people, whether from files or from the daemon.

Pure. Must not know how the verdict was found. Keys that only rewriting needs may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cgnetd.cli.answer import Style, table
from cgnetd.cli.place import place

_WORDS = {"redirect": "redirected to", "rewrite": "rewritten to"}
_SETS = {
    "source_address": "leaves from {}",
    "privileged": "needs no CAP_NET_BIND_SERVICE",
    "mark": "gets mark 0x{:x}",
    "priority": "gets priority {}",
    "device": "is bound to device {}",
}


def lines(explained: Mapping[str, Any], style: Style) -> Iterator[str]:
    for note in explained["notes"]:
        yield style.faint(note)
    where = place(explained["address"], explained["port"], explained.get("name"))
    asked = " ".join(word for word in (explained["hook"], explained["protocol"], where) if word)
    yield f"{explained['cgroup']} {asked}: {style.verdict(_verdict(explained, ''))}"
    governed = explained["steps"] or explained["policy"] or explained["verdict"] == "deny"
    yield f"  by {_decider(explained, '')}, {explained['source']}" if governed else f"  {explained['source']}"
    yield from _effects(explained, style)
    if _differs(explained):
        shadow = style.doubtful(_verdict(explained, "shadow_"))
        yield f"  with audit policies enforced: {shadow}, by {_decider(explained, 'shadow_')}"
    yield from _target(explained.get("rewriting") or {}, explained, style)
    yield from _policies(explained, style)


def _verdict(explained: Mapping[str, Any], prefix: str) -> str:
    verdict, errno = str(explained[f"{prefix}verdict"]), explained.get(f"{prefix}errno")
    if verdict in _WORDS:
        return f"{_WORDS[verdict]} {_new_place(explained, prefix)}"
    return f"{verdict} ({errno})" if verdict == "deny" and errno else verdict


def _new_place(data: Mapping[str, Any], prefix: str = "") -> str:
    return place(*(data.get(f"{prefix}new_{key}") for key in ("address", "port", "name"))) or "another place"


def _differs(explained: Mapping[str, Any]) -> bool:
    return any(
        explained.get(f"shadow_{key}", explained.get(key)) != explained.get(key)
        for key in ("verdict", "new_address", "new_port", "new_name")
    )


def _decider(explained: Mapping[str, Any], prefix: str) -> str:
    if not explained.get(f"{prefix}policy"):
        return f"the daemon's {explained.get(f'{prefix}rule') or 'default_action'}"
    return _rule(explained, prefix)


def _rule(data: Mapping[str, Any], prefix: str = "") -> str:
    names = "/".join(str(data[f"{prefix}{key}"]) for key in ("policy", "rule"))
    return f"{names} at {data[f'{prefix}file']}:{data[f'{prefix}line']}"


def _effects(explained: Mapping[str, Any], style: Style) -> Iterator[str]:
    if reason := explained.get("reason"):
        yield f"  because {reason}"
    for key, value in (explained.get("sets") or {}).items():
        yield "  it " + _SETS.get(key, f"gets {key} {{}}").format(value)
    if service := explained.get("service"):
        yield f"  by choice of service {service['name']} ({service['balance']}) among its backends:"
        yield from (f"    {line}" for line in table(_backend(backend) for backend in service["backends"]))
    if tcp := explained.get("tcp"):
        yield "  TCP connections: " + ", ".join(f"{key} {value}" for key, value in tcp.items())


def _backend(backend: Mapping[str, Any]) -> Sequence[str]:
    alive = {True: "alive", False: "dead"}.get(backend.get("alive", ""), "")
    verdict = "denied" if backend.get("verdict") == "deny" else alive
    return (place(backend["address"], backend["port"]), f"{100 * backend['share']:.1f} %", verdict)


def _target(rewriting: Mapping[str, Any], explained: Mapping[str, Any], style: Style) -> Iterator[str]:
    """What comes before a rule that rewrites has a say about the new destination."""
    if not rewriting:
        return
    where = place(*(rewriting.get(f"new_{key}") for key in ("address", "port", "name")))
    if not where:
        if explained.get("name"):
            yield f"  {_rule(rewriting)} cannot be followed: the name is no absolute, plain path and could be any"
        return
    if explained["verdict"] == "deny" and not explained.get("reason"):
        yield f"  {_rule(rewriting)} leads to {where}, and that is denied"
    if asked := rewriting.get("asked"):
        yield style.strong(f"asked about {where}, for they come before {rewriting['policy']}/{rewriting['rule']}:")
        yield from _numbered(asked)


def _policies(explained: Mapping[str, Any], style: Style) -> Iterator[str]:
    steps = explained["steps"]
    if not steps:
        crowded = explained["rule"] == "overflow" and not explained["policy"]
        yield "more policies govern this cgroup than fit" if crowded else "no policy governs this cgroup"
        return
    yield style.strong("policies that govern it, in order:")
    yield from _numbered(steps)


def _numbered(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from (f"  {line}" for line in table(_row(number, step) for number, step in enumerate(steps, 1)))


def _row(number: int, step: Mapping[str, Any]) -> tuple[str, ...]:
    tier = f"{step['tier']} {step['priority']}" if "priority" in step else str(step["tier"])
    mode = "audit" if step.get("audit") else "enforce"
    where = f"{step['file']}:{step['line']}" if step.get("file") else ""
    return (f"{number}.", str(step["policy"]), tier, mode, str(step["outcome"]), where)
