# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl explain`: what a call would get, by which rule, and every policy on the way. Exits 1 when it is denied."""

from __future__ import annotations

import argparse
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import cgroup_root, control_socket
from cgnetd.cli.endpoint import FAMILY_UNIX, HOOKS, PROTOCOLS, UNIX, format_endpoint, format_name, parse_flow
from cgnetd.cli.explained import lines
from cgnetd.cli.subject import Subject, resolve
from cgnetd.datapath.words import name_text
from cgnetd.policy.types import Flow, Hook

HELP = "the verdict for a call, its rule, and every policy asked; exits 1 when denied"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject", metavar="SUBJECT", help="a unit name, a /cgroup/path below the cgroup root, or pid:N"
    )
    parser.add_argument("hook", metavar="HOOK", help=" | ".join(HOOKS))
    parser.add_argument(
        "protocol",
        metavar="PROTO",
        help=" | ".join([*PROTOCOLS, "raw", UNIX]) + "; for create a kind of socket: inet/stream, inet6/dgram, ...",
    )
    parser.add_argument(
        "endpoint",
        metavar="PLACE",
        nargs="?",
        help="192.0.2.1:443, [2001:db8::1]:443; for unix /run/app.sock, @name; not for socket and create",
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
    return Answer(explained, tuple(lines(explained, style)), 1 if explained["verdict"] == "deny" else 0)


def _from_files(args: argparse.Namespace, flow: Flow) -> dict[str, Any]:
    from cgnetd.cli.judged import judge_offline  # the parser is only worth its start-up time here

    subject = resolve(args.subject, None if args.subject.startswith("/") else cgroup_root(args))
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
        "protocol": args.protocol if flow.raw or flow.family == FAMILY_UNIX else flow.protocol.value,
        "address": question["address"],
        "port": flow.port,
        "v6_only": flow.v6_only,
    }
    if flow.hook is Hook.CREATE:
        request |= {"family": flow.family, "type": flow.type.value}
    if flow.family == FAMILY_UNIX:
        request |= {"name": format_name(flow.name)}
    return question | client.call(socket_path, "explain", request)


def _question(args: argparse.Namespace, subject: Subject, flow: Flow) -> dict[str, Any]:
    has_address = flow.hook not in (Hook.SOCKET, Hook.CREATE) and flow.family != FAMILY_UNIX
    host = format_endpoint(flow.family, flow.address, flow.port).rpartition(":")[0].strip("[]") if has_address else ""
    return {
        "subject": args.subject,
        "cgroup": subject.path,
        "notes": list(subject.notes),
        "hook": flow.hook.value,
        "protocol": args.protocol,
        "address": host,
        "port": flow.port,
        "name": name_text(flow.name),
    }
