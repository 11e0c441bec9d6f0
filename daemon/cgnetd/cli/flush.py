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
from cgnetd.errors import NotRunningError, PinError, PrivilegeError, SettingsError
from cgnetd.service import places

HELP = "take all enforcement away; works with and without a daemon"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pin-dir", metavar="DIR", help="the pins to remove; default: the daemon's, or as configured")


def run(args: argparse.Namespace, style: Style) -> Answer:
    wanted = os.path.abspath(args.pin_dir) if args.pin_dir else None
    socket_path = _socket(args, wanted)
    try:
        pin_dir = str(client.call(socket_path, "status")["pin_dir"])
    except NotRunningError as error:
        if args.control_socket and wanted is None:  # not the pins of another daemon, for want of the one that was named
            raise NotRunningError(f"{error}; flush without it by --pin-dir") from error
        return _directly(wanted or settings(args).pin_dir, style)
    if wanted not in (None, pin_dir):
        return _directly(wanted, style)
    return _answer({**client.call(socket_path, "flush"), "pin_dir": pin_dir, "by": "daemon"}, style)


def _socket(args: argparse.Namespace, wanted: str | None) -> str:
    """Where to ask for a daemon. Broken settings must not keep anybody from removing pins that were named."""
    try:
        return control_socket(args)
    except SettingsError:
        if wanted is None:
            raise
        return places.CONTROL_SOCKET


def _directly(pin_dir: str, style: Style) -> Answer:
    """Remove the pins ourselves. A daemon that holds them would put them back at once: it must be stopped or asked."""
    from cgnetd.kernel.flush import flush
    from cgnetd.kernel.lock import holder

    try:
        if who := holder(Path(pin_dir)):
            raise PinError(f"flush {pin_dir}: it is held by {who}; name its socket with --control-socket, or stop it")
        flushed = flush(Path(pin_dir))
    except PermissionError as error:
        raise PrivilegeError(f"flush {pin_dir}: {error.strerror}; run this as root") from error
    return _answer({**asdict(flushed), "pin_dir": pin_dir, "by": "cgnetctl"}, style)


def _answer(data: dict[str, Any], style: Style) -> Answer:
    line = style.good(f"flushed {data['pin_dir']}: nothing is enforced from there any more")
    if data["by"] == "daemon":
        line += "; cgnetd still runs, cgnetctl reload enforces again"
    left = data.get("left") or ()
    return Answer(data, (line, *(f"left, for it is not ours: {path}" for path in left)))
