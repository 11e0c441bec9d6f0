# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl reload`: ask the daemon to read settings and policies now; returns when they are in force, or fails."""

from __future__ import annotations

import argparse
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import control_socket
from cgnetd.cli.problems import problem_texts

HELP = "read settings and policies again and put them in force"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace, style: Style) -> Answer:
    result = client.call(control_socket(args), "reload")
    return Answer(result, _lines(result, style))


def _lines(result: dict[str, Any], style: Style) -> tuple[str, ...]:
    lines = [_head(result, style)]
    if changed := result.get("settings_changed"):
        lines.append(f"settings changed: {', '.join(changed)}")
    if waiting := result.get("settings_waiting"):
        lines.append(f"{style.doubtful('warning')}: settings need a restart of cgnetd: {', '.join(waiting)}")
    return (*lines, *(f"{style.doubtful('warning')}: {text}" for text in problem_texts(result.get("warnings"))))


def _head(result: dict[str, Any], style: Style) -> str:
    if not result.get("policies"):
        return style.doubtful("there are no policies, nothing is enforced")
    unchanged = "" if result.get("changed", True) else ", as before"
    return style.good(f"generation {result.get('generation', 0)} is in force") + unchanged
