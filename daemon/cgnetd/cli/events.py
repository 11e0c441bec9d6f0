# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl events`: what was denied, shadow-denied, redirected and logged lately, and with -f what is from now on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Stream, Style
from cgnetd.cli.defaults import control_socket
from cgnetd.cli.place import place
from cgnetd.errors import UsageError

HELP = "recent denies, shadow denies, logged redirects and allows; -f goes on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new events until interrupted")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="the last N events (with -f: end after N events)")


def run(args: argparse.Namespace, style: Style) -> Stream:
    if args.lines is not None and args.lines < 0:
        raise UsageError(f"read -n {args.lines}: not a number of events")
    request: dict[str, Any] = {"follow": args.follow}
    if args.lines is not None and not args.follow:
        request["count"] = args.lines
    items: Iterator[Mapping[str, Any]] = client.follow(control_socket(args), "events", request)
    if args.follow and args.lines is not None:
        items = islice(items, args.lines)
    return Stream(items, lambda event: line(event, style))


def line(event: Mapping[str, Any], style: Style) -> str:
    """One line for a person. An event of the daemon itself has a message instead of a verdict."""
    when = style.faint(str(event.get("time", ""))[:19])
    if event.get("type") != "flow":
        return f"{when}  {style.doubtful(str(event.get('type', '')))}  {event.get('message', '')}"
    words = [when, f"{_verdict(event, style)}", _who(event), str(event["hook"]), str(event["protocol"])]
    if asked := _place(event):
        words.append(asked)
    if new := place(event.get("new_address"), event.get("new_port"), event.get("new_name")):
        words.append(f"to {new}")
    if event.get("errno"):
        words.append(str(event["errno"]))
    words.append(f"by {_rule(event)}")
    if event.get("reason"):
        words.append(str(event["reason"]))
    if event.get("count", 1) > 1:
        words.append(f"{event['count']} times")
    if event.get("comm"):
        words.append(style.faint(f"{event['comm']}[{event.get('pid', '?')}]"))
    return "  ".join(words)


def _verdict(event: Mapping[str, Any], style: Style) -> str:
    verdict, shadow = str(event["verdict"]), str(event["shadow_verdict"])
    if verdict == shadow:
        return style.verdict(verdict.ljust(5))
    return style.doubtful(f"{verdict} (audit: {shadow})")


def _who(event: Mapping[str, Any]) -> str:
    for key in ("user_unit", "unit", "cgroup"):
        if event.get(key):
            return str(event[key])
    return f"cgroup {event.get('cgroup_id')}"


def _place(event: Mapping[str, Any]) -> str:
    if event.get("collected"):
        return "many destinations"
    side = "remote" if event.get("remote_address") else "local"
    name = event.get("name") or event.get("socket_type")
    return place(event.get(f"{side}_address"), event.get(f"{side}_port"), name)


def _rule(event: Mapping[str, Any]) -> str:
    prefix = "shadow_" if event["verdict"] != event["shadow_verdict"] else ""
    if not event.get(f"{prefix}policy"):
        return str(event.get(f"{prefix}rule"))
    return f"{event[f'{prefix}policy']}/{event[f'{prefix}rule']} ({event[f'{prefix}file']}:{event[f'{prefix}line']})"
