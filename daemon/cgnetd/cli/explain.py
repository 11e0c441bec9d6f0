# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl explain`: what a call would get, by which rule, and every policy on the way. Exits 1 when it is denied."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style, table
from cgnetd.cli.defaults import cgroup_root, control_socket
from cgnetd.cli.endpoint import HOOKS, PROTOCOLS, format_endpoint, parse_flow
from cgnetd.cli.subject import Subject, resolve
from cgnetd.policy.types import Flow, Hook

HELP = "the verdict for a call, its rule, and every policy asked; exits 1 when denied"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject", metavar="SUBJECT", help="a unit name, a /cgroup/path below the cgroup root, or pid:N"
    )
    parser.add_argument("hook", metavar="HOOK", help=" | ".join(HOOKS))
    parser.add_argument("protocol", metavar="PROTO", help=" | ".join([*PROTOCOLS, "raw"]))
    parser.add_argument(
        "endpoint", metavar="ADDRESS:PORT", nargs="?", help="192.0.2.1:443, [2001:db8::1]:443; not for socket"
    )
    parser.add_argument(
        "--policy-dir", action="append", metavar="DIR", help="explain these files, without a daemon; repeatable"
    )
    parser.add_argument(
        "--default-action", choices=("allow", "deny"), default="allow", help="with --policy-dir; default: allow"
    )
    parser.add_argument(
        "--cgroup-root", metavar="DIR", help="where units are looked up; default: the daemon's, or the one mounted"
    )
    parser.add_argument("--v6-only", action="store_true", help="bind to [::] with IPV6_V6ONLY set")


def run(args: argparse.Namespace, style: Style) -> Answer:
    flow = parse_flow(args.hook, args.protocol, args.endpoint, v6_only=args.v6_only)
    explained = _from_files(args, flow) if args.policy_dir else _from_daemon(args, flow)
    return Answer(explained, tuple(_lines(explained, style)), 1 if explained["verdict"] == "deny" else 0)


def _from_files(args: argparse.Namespace, flow: Flow) -> dict[str, Any]:
    from cgnetd.cli.judged import judge_offline  # the parser is only worth its start-up time here

    subject = resolve(args.subject, cgroup_root(args))
    return _question(args, subject, flow) | judge_offline(
        args.policy_dir, subject.components, flow, args.default_action
    )


def _from_daemon(args: argparse.Namespace, flow: Flow) -> dict[str, Any]:
    socket_path = control_socket(args)
    root = args.cgroup_root or str(client.call(socket_path, "status")["cgroup_root"])
    subject = resolve(args.subject, root)
    question = _question(args, subject, flow)
    request = {
        "cgroup": subject.path,
        "hook": flow.hook.value,
        "protocol": "raw" if flow.raw else flow.protocol.value,
        "address": question["address"],
        "port": flow.port,
        "v6_only": flow.v6_only,
    }
    return question | client.call(socket_path, "explain", request)


def _question(args: argparse.Namespace, subject: Subject, flow: Flow) -> dict[str, Any]:
    host = format_endpoint(flow.family, flow.address, flow.port).rpartition(":")[0].strip("[]")
    return {
        "subject": args.subject,
        "cgroup": subject.path,
        "notes": list(subject.notes),
        "hook": flow.hook.value,
        "protocol": args.protocol,
        "address": "" if flow.hook is Hook.SOCKET else host,
        "port": flow.port,
    }


def _lines(explained: Mapping[str, Any], style: Style) -> Iterator[str]:
    for note in explained["notes"]:
        yield style.faint(note)
    address, port = explained["address"], explained["port"]
    place = f" [{address}]:{port}" if ":" in address else f" {address}:{port}" if address else ""
    verdict = _verdict(explained, "")
    yield f"{explained['cgroup']} {explained['hook']} {explained['protocol']}{place}: {style.verdict(verdict)}"
    governed = explained["steps"] or explained["policy"] or explained["verdict"] == "deny"
    yield f"  by {_decider(explained, '')}, {explained['source']}" if governed else f"  {explained['source']}"
    if explained["shadow_verdict"] != explained["verdict"]:
        shadow = style.doubtful(_verdict(explained, "shadow_"))
        yield f"  with audit policies enforced: {shadow}, by {_decider(explained, 'shadow_')}"
    steps = explained["steps"]
    if not steps:
        crowded = explained["rule"] == "overflow" and not explained["policy"]
        yield "more policies govern this cgroup than fit" if crowded else "no policy governs this cgroup"
        return
    yield style.strong("policies that govern it, in order:")
    rows = [_row(number, step) for number, step in enumerate(steps, 1)]
    yield from (f"  {line}" for line in table(rows))


def _verdict(explained: Mapping[str, Any], prefix: str) -> str:
    verdict, errno = explained[f"{prefix}verdict"], explained.get(f"{prefix}errno")
    return f"{verdict} ({errno})" if verdict == "deny" and errno else str(verdict)


def _decider(explained: Mapping[str, Any], prefix: str) -> str:
    if not explained.get(f"{prefix}policy"):
        return f"the daemon's {explained.get(f'{prefix}rule') or 'default_action'}"
    where = f"{explained[f'{prefix}file']}:{explained[f'{prefix}line']}"
    return f"{explained[f'{prefix}policy']}/{explained[f'{prefix}rule']} at {where}"


def _row(number: int, step: Mapping[str, Any]) -> tuple[str, ...]:
    tier = f"{step['tier']} {step['priority']}" if "priority" in step else str(step["tier"])
    mode = "audit" if step.get("audit") else "enforce"
    where = f"{step['file']}:{step['line']}" if step.get("file") else ""
    return (f"{number}.", str(step["policy"]), tier, mode, str(step["outcome"]), where)
