#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the real daemon with the shipped examples on a private cgroup, real clients, every verdict explained.

Exits 1 if anything went another way than the examples say. Leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import calls
from calls import Call
from stage import Stage, wait_for

import clients
from cgnetd.cli.answer import Style, table
from cgnetd.cli.events import line

INSIDE = "CGNETD_DEMO_INSIDE"  # set once we are in namespaces of our own
NEEDED = ("curl", "dig", "socat", "ip", "unshare", "setpriv", "mount")


def main() -> int:
    if os.geteuid() != 0:
        return _refuse("it attaches programs to cgroups: run it as root")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return _refuse(f"not installed: {', '.join(missing)}; make setup installs them")
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, *sys.argv])
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):  # which a shell ignores for what it starts beside
        signal.signal(number, _interrupted)
    try:
        with Stage() as stage:
            wrong = Show(stage).run()
            root, base = stage.root, stage.base
    except KeyboardInterrupt:
        return 130
    left = [str(path) for path in (root, base) if path.exists()]
    print(f"\nleft behind: {', '.join(left) or 'nothing'}")
    return 1 if wrong or left else 0


class Show:
    """The acts of the demo, and what went wrong in them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._style = Style(sys.stdout.isatty() and not os.environ.get("NO_COLOR"))
        self._wrong = 0

    def run(self) -> int:
        """Play all acts; the number of things that went another way than expected."""
        stage = self._stage
        for call in calls.GOVERNED:
            stage.cgroup(call.cgroup)
        stage.start_daemon()
        _, status = stage.ctl("status")
        sizes = f"{len(status['policies'])} policies, {status['governed_cgroups']} governed cgroups below {stage.root}"
        self._title(f"cgnetd {status['version']} enforces generation {status['generation']}: {sizes}")
        self._act("every address below is on this machine's loopback, with a server behind it", calls.GOVERNED)
        self._while_stopped()
        self._after_kill()
        self._events((*calls.GOVERNED, *calls.WHILE_STOPPED, *calls.AFTER_KILL))
        self._flush()
        verdict = (
            self._style.bad(f"{self._wrong} went another way than expected")
            if self._wrong
            else self._style.good("all as expected")
        )
        print(f"\n{verdict}")
        return self._wrong

    def _while_stopped(self) -> None:
        assert self._stage.daemon is not None
        self._stage.daemon.send_signal(signal.SIGSTOP)
        outcomes = self._outcomes(calls.WHILE_STOPPED)
        self._stage.daemon.send_signal(signal.SIGCONT)
        self._table("the daemon is stopped (SIGSTOP), and a new unit starts", calls.WHILE_STOPPED, outcomes)

    def _after_kill(self) -> None:
        self._stage.stop_daemon(signal.SIGKILL)
        outcomes = self._outcomes(calls.AFTER_KILL)
        self._stage.start_daemon()
        self._table("the daemon is dead (SIGKILL), and a new unit starts", calls.AFTER_KILL, outcomes)

    def _act(self, title: str, acts: tuple[Call, ...]) -> None:
        self._table(title, acts, self._outcomes(acts))

    def _outcomes(self, acts: Iterable[Call]) -> list[str]:
        return [clients.run(call, self._stage.cgroup(call.cgroup)) for call in acts]

    def _table(self, title: str, acts: tuple[Call, ...], outcomes: list[str]) -> None:
        self._title(title)
        head = ("WHO", "CALL", "EXPECTED", "GOT", "DECIDED BY (cgnetctl explain)")
        rows, marks = [], []
        for call, got in zip(acts, outcomes, strict=True):
            rule, text = self._explain(call)
            good = got == call.expect and rule == call.rule
            self._wrong += not good
            marks.append(self._style.good("   ok") if good else self._style.bad("WRONG"))
            rows.append((call.cgroup.rpartition("/")[2] or "(not governed)", call.title, call.expect, got, text))
        lines = table(rows, head)
        print(f"         {self._style.faint(lines[0])}")
        for mark, text in zip(marks, lines[1:], strict=True):
            print(f"  {mark}  {text}")

    def _explain(self, call: Call) -> tuple[str, str]:
        """What the running generation says: the rule, and how to show it."""
        if call.cgroup == calls.OUTSIDE:
            return "", "no policy governs it"
        code, said = self._stage.ctl("explain", call.cgroup, *call.flow)
        if code not in (0, 1) or "verdict" not in said:
            return str(said), str(said)
        verdict = said["errno"] if said["verdict"] == "deny" else "ok"
        if verdict != call.expect:
            return "", f"explain says {verdict}"
        rule = f"{said['policy']}/{said['rule']}" if said["policy"] else str(said["rule"])
        where = f" ({os.path.basename(said['file'])}:{said['line']})" if said["file"] else ""
        audit = f"; audit: {said['shadow_policy']} would deny" if said["shadow_verdict"] != said["verdict"] else ""
        return rule, f"{rule}{where}{audit}"

    def _events(self, acts: tuple[Call, ...]) -> None:
        """Each deny and each shadow deny must have made an event; all flow events are shown."""
        wanted = [(call, key) for call in acts for key in _keys(call)]
        wait_failed = ""
        try:
            wait_for("the events", lambda: not self._untold(wanted))
        except RuntimeError as error:
            wait_failed = str(error)
        self._title("audit events (cgnetd --audit stdout)")
        for event in self._stage.events():
            if event["type"] == "flow":
                print(f"  {line(event, self._style)}")
        for call, key in self._untold(wanted):
            self._wrong += 1
            print(self._style.bad(f"  {wait_failed}: none for {call.title} by {'/'.join(key[1:])}"))

    def _untold(self, wanted: list[tuple[Call, tuple[str, ...]]]) -> list[tuple[Call, tuple[str, ...]]]:
        told = {key for event in self._stage.events() if event["type"] == "flow" for key in _event_keys(event)}
        return [(call, key) for call, key in wanted if key not in told]

    def _flush(self) -> None:
        code, _ = self._stage.ctl("flush")
        got = clients.run(calls.GOVERNED[3], self._stage.cgroup(calls.GOVERNED[3].cgroup))
        self._title(f"cgnetctl flush: {calls.GOVERNED[3].title} is now {got}")
        self._wrong += code != 0 or got != "ok"

    def _title(self, text: str) -> None:
        print(f"\n{self._style.strong(text)}", flush=True)


def _keys(call: Call) -> list[tuple[str, ...]]:
    """(cgroup, policy, rule) of the event that a call must make, if any."""
    rules = [call.rule] if call.denied else []
    return [(call.cgroup, *rule.split("/")) for rule in [*rules, *([call.shadow] if call.shadow else [])]]


def _event_keys(event: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(event["cgroup"], event[f"{p}policy"], event[f"{p}rule"]) for p in ("", "shadow_")]


def _interrupted(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _refuse(reason: str) -> int:
    print(f"demo: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
