# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl flush`: take all enforcement away, through the daemon that runs on that directory, or without one."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import control_socket, settings
from cgnetd.errors import NotRunningError, PinError

NAME = "flush"
HELP = "take all enforcement away; works with and without a daemon"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pin-dir", metavar="DIR", help="the pins to remove; default: the daemon's, or as configured")


def run(args: argparse.Namespace, style: Style) -> Answer:
    wanted = os.path.abspath(args.pin_dir) if args.pin_dir else None
    try:
        socket_path = control_socket(args)
        pin_dir = str(client.call(socket_path, "status")["pin_dir"])
    except NotRunningError:
        return _directly(wanted or settings(args).pin_dir, style)
    if wanted not in (None, pin_dir):
        return _directly(wanted, style)
    result = client.call(socket_path, "flush")
    return _answer({**result, "pin_dir": pin_dir, "by": "daemon"}, style)


def _directly(pin_dir: str, style: Style) -> Answer:
    """Remove the pins ourselves. A daemon that holds them would put them back at once: it must be stopped or asked."""
    from cgnetd.kernel.flush import flush
    from cgnetd.kernel.lock import holder

    if who := holder(Path(pin_dir)):
        raise PinError(f"flush {pin_dir}: it is held by {who}; name its socket with --control-socket, or stop it")
    flushed = flush(Path(pin_dir))
    return _answer({**asdict(flushed), "pin_dir": pin_dir, "by": "cgnetctl"}, style)


def _answer(data: dict[str, Any], style: Style) -> Answer:
    line = f"flushed {data['pin_dir']}: nothing is enforced from there any more"
    if data["by"] == "daemon":
        line += "; cgnetd still runs, cgnetctl reload enforces again"
    return Answer(data, (style.good(line),))
