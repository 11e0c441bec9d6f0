# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl reload`: ask the daemon to read its policies now; returns when the new generation is in force, or fails."""

from __future__ import annotations

import argparse
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import control_socket
from cgnetd.cli.problems import problem_texts

HELP = "read the policies again and put them in force"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace, style: Style) -> Answer:
    result = client.call(control_socket(args), "reload")
    return Answer(result, _lines(result, style))


def _lines(result: dict[str, Any], style: Style) -> tuple[str, ...]:
    unchanged = "" if result.get("changed", True) else ", as before"
    head = style.good(f"generation {result.get('generation', 0)} is in force") + unchanged
    return (head, *(f"warning: {text}" for text in problem_texts(result.get("warnings"))))
