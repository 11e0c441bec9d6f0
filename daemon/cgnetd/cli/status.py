# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl status`: is it enforcing, what, where, and what is wrong. Exits 1 when it is not enforcing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.amount import memory
from cgnetd.cli.answer import Answer, Style, table
from cgnetd.cli.defaults import control_socket
from cgnetd.cli.neighbours import conflict_texts, neighbour_lines
from cgnetd.cli.place import place
from cgnetd.cli.problems import problem_texts

HELP = "generation, policies, governed cgroups, counters; exits 1 when not enforcing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace, style: Style) -> Answer:
    status = client.call(control_socket(args), "status")
    return Answer(status, tuple(_lines(status, style)), 0 if status.get("enforcing") else 1)


def _lines(status: Mapping[str, Any], style: Style) -> Iterator[str]:
    enforcing = style.good("enforcing") if status.get("enforcing") else style.bad("NOT ENFORCING")
    yield f"cgnetd {status.get('version')} (pid {status.get('pid')}): {enforcing}"
    for reason in status.get("reasons") or ():
        yield f"  because {reason}"
    for name, value in _facts(status):
        yield f"  {style.faint((name + ':').ljust(18))} {value}"
    for text in status.get("waiting") or ():
        yield f"  {style.doubtful(str(text))}"
    yield from _section("services", _services(status), style)
    yield from _section("policies", _policies(status), style)
    yield from _section("rules that decided", _counters(status), style)
    yield from _section("programs of others", neighbour_lines(status), style)
    for text in conflict_texts(status):
        yield style.bad("conflict: ") + text
    overflow = status.get("overflow") or {}
    if overflow.get("cgroups"):
        examples = ", ".join(overflow.get("examples") or ())
        yield (
            style.bad("problem: ")
            + f"more policies than fit govern {overflow['cgroups']} cgroups: every call there is "
            f"denied (rule overflow): {examples}"
        )
    for title, paint in (("problems", style.bad), ("warnings", style.doubtful)):
        for text in problem_texts(status.get(title)):
            yield paint(f"{title.removesuffix('s')}: ") + text


def _facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "generation", f"{status.get('generation') or 'none'}{_since(status)}"
    yield "governed cgroups", str(status.get("governed_cgroups"))
    yield "cgroup root", str(status.get("cgroup_root"))
    yield "pins", str(status.get("pin_dir"))
    if hooks := status.get("hooks"):
        yield (
            "hooks",
            ", ".join(name if state == "ok" else f"{name} ({state})" for name, state in sorted(hooks.items())),
        )
    yield from _present(status)
    troubles = [f"{name} {count}" for name, count in (status.get("stats") or {}).items() if count]
    yield "losses", ", ".join(troubles) or "none"
    sizes = status.get("sizes") or {}
    if "image_bytes" in sizes and "limit_bytes" in sizes:
        yield "memory", memory(sizes["image_bytes"], sizes["limit_bytes"])
    for key, title in (("sizes", "sizes"), ("last_reconcile", "last pass")):
        if facts := status.get(key):
            yield title, ", ".join(f"{name} {value}" for name, value in facts.items() if _simple(value))
    if missing := status.get("missing_features"):
        yield "missing", "; ".join(str(feature) for feature in missing)


def _present(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Devices and source addresses that rules name, if any."""
    for key, name in (("devices", "name"), ("sources", "address")):
        items = status.get(key) or ()
        if items:
            yield key, ", ".join(str(item[name]) + ("" if item["present"] else " (missing)") for item in items)


def _since(status: Mapping[str, Any]) -> str:
    return f", in force since {status['loaded_at']}" if status.get("loaded_at") else ""


def _services(status: Mapping[str, Any]) -> tuple[str, ...]:
    head = ("NAME", "BACKEND", "WEIGHT", "SHARE", "STATE", "SINCE", "LAST ERROR")
    rows = [
        (
            str(service["name"]),
            place(backend["address"], backend["port"]) if backend["port"] else str(backend["address"]),
            str(backend["weight"]),
            f"{100 * backend['share']:.1f} %",
            _state(service, backend),
            str(backend.get("since") or "")[:19],
            str(backend.get("error") or ""),
        )
        for service in status.get("services") or ()
        for backend in service["backends"]
    ]
    return table(rows, head) if rows else ()


def _state(service: Mapping[str, Any], backend: Mapping[str, Any]) -> str:
    if not service.get("probed"):
        return "not probed"
    return "alive" if backend["alive"] else "dead"


def _policies(status: Mapping[str, Any]) -> tuple[str, ...]:
    head = ("NAME", "TIER", "PRIORITY", "MODE", "RULES", "CGROUPS", "DECIDED", "FILE")
    rows = [
        (
            *(str(policy.get(key, "")) for key in ("name", "tier", "priority", "mode", "rules", "governed", "decided")),
            f"{policy.get('file')}:{policy.get('line')}",
        )
        for policy in status.get("policies") or ()
    ]
    return table(rows, head) if rows else ()


def _counters(status: Mapping[str, Any]) -> tuple[str, ...]:
    head = ("RULE", "ENFORCED", "SHADOW", "FILE")
    rows = [
        (
            f"{row['policy']}/{row['rule']}" if row.get("policy") else str(row["rule"]),
            str(row["enforced"]),
            str(row["shadow"]),
            f"{row['file']}:{row['line']}" if row.get("file") else "built in",
        )
        for row in status.get("counters") or ()
        if row.get("enforced") or row.get("shadow")
    ]
    return table(rows, head) if rows else ()


def _section(title: str, lines: tuple[str, ...], style: Style) -> Iterator[str]:
    if lines:
        yield style.strong(title)
        yield from (f"  {line}" for line in lines)


def _simple(value: Any) -> bool:
    return isinstance(value, str | int | float) and value not in ("", None)
