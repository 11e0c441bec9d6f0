# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl diff`: what a reload would change, as rules and as verdicts of calls seen lately. Exits 1 if anything."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import control_socket
from cgnetd.cli.place import place
from cgnetd.cli.problems import problem_texts
from cgnetd.errors import PolicyError

HELP = "what a reload would change; exits 1 if anything, 78 if the files have errors"

_KINDS = ("policies", "rules", "services")
Json = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy-dir", action="append", metavar="DIR", help="as if these were the policy directories; repeatable"
    )


def run(args: argparse.Namespace, style: Style) -> Answer:
    named = {"policy_dirs": [os.path.abspath(path) for path in args.policy_dir]} if args.policy_dir else {}
    found = client.call(control_socket(args), "diff", named)
    code = PolicyError.exit_code if found.get("problems") else int(differs(found))
    return Answer(found, tuple(lines(found, style)), code)


def differs(found: Json) -> bool:
    """Whether a reload would change anything that was written, or any verdict."""
    written = any(items for kind in _KINDS for items in (found.get(kind) or {}).values())
    return written or bool((found.get("verdicts") or {}).get("changed"))


def lines(found: Json, style: Style) -> Iterator[str]:
    """The answer of the daemon for people."""
    for text in problem_texts(found.get("problems")):
        yield f"{style.bad('error')}: {text}"
    if found.get("problems"):
        yield "the files have errors: a reload would change nothing"
        return
    for text in problem_texts(found.get("warnings")):
        yield f"{style.doubtful('warning')}: {text}"
    for kind in _KINDS:
        changes = found.get(kind) or {}
        if any(changes.values()):
            yield style.strong(kind)
            yield from (f"  {line}" for line in _changes(changes, style))
    yield from _calls(found.get("verdicts") or {}, style)
    if not differs(found):
        yield style.good("a reload would change nothing")


def _changes(changes: Mapping[str, Sequence[Json]], style: Style) -> Iterator[str]:
    for item in changes.get("removed") or ():
        yield style.bad(f"- {_name(item)}") + _calls_of(item) + _where(item)
    for item in changes.get("added") or ():
        yield style.good(f"+ {_name(item)}") + _where(item)
    for item in changes.get("changed") or ():
        what = ", ".join(item.get("what") or ())
        before = item.get("before")
        was = f"; was {_does(before)}" if before and _does(before) != _does(item) else ""
        yield style.doubtful(f"~ {_name(item)}") + f" ({what}{was})" + _calls_of(item) + _where(item)
        yield from (f"    {line}" for line in _backends(item.get("backends") or {}))


def _name(item: Json) -> str:
    if "service" in item:
        return str(item["service"])
    if "rule" in item:
        return f"{item['policy']}/{item['rule']}: {_does(item)}"
    return f"{item['policy']}: {item.get('tier')} {item.get('priority')} {item.get('mode')}"


def _does(rule: Json) -> str:
    action, to = str(rule.get("action", "")), rule.get("to")
    if not to:
        return action
    return f"{action} to {to}" if action in ("redirect", "rewrite") else f"{action}, {to}"


def _where(item: Json) -> str:
    return f"  {item['file']}:{item['line']}" if item.get("file") else ""


def _calls_of(item: Json) -> str:
    return f"  {_counted(item['calls'])} decided" if item.get("calls") else ""


def _backends(backends: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for key, sign in (("removed", "-"), ("added", "+"), ("changed", "~")):
        yield from (f"{sign} {backend}" for backend in backends.get(key) or ())


def _calls(verdicts: Json, style: Style) -> Iterator[str]:
    if not (verdicts.get("checked") or verdicts.get("unjudged")):
        return
    unjudged = f", {verdicts['unjudged']} could not be" if verdicts.get("unjudged") else ""
    yield style.strong(f"of the calls told lately, {verdicts.get('checked', 0)} judged again{unjudged}")
    for call in verdicts.get("changed") or ():
        yield f"  {_turn(call, style)}  {_counted(call['calls'])}, by {_rule(call)}"
    if not verdicts.get("changed"):
        yield "  none would get another verdict"


def _turn(call: Json, style: Style) -> str:
    name = call.get("name") or call.get("socket_type")
    asked = place(call.get("to_address"), call.get("to_port"), name)
    who = " ".join(str(word) for word in (call["subject"], call["hook"], call["protocol"], asked) if word)
    before, after = (_verdict(call, key) for key in ("from", "to"))
    return f"{before} -> {style.verdict(after)}  {who}"


def _verdict(call: Json, key: str) -> str:
    where = call.get(f"{key}_place")
    return f"{call[key]} to {where}" if where else str(call[key])


def _rule(call: Json) -> str:
    if not call.get("policy"):
        return str(call.get("rule"))
    return f"{call['policy']}/{call['rule']}{_where(call)}"


def _counted(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls} calls"
