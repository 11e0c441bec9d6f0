# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl version`: this program's version and, where one runs, the daemon's."""

from __future__ import annotations

import argparse

from cgnetd import __version__
from cgnetd.cli import client
from cgnetd.cli.answer import Answer, Style
from cgnetd.cli.defaults import control_socket
from cgnetd.errors import CgnetdError

HELP = "versions of cgnetctl and of the running daemon"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace, style: Style) -> Answer:
    try:
        daemon = client.call(control_socket(args), "version").get("version")
    except CgnetdError:  # not running, not let in: no reason to fail, this program's version is known
        daemon = None
    lines = [f"cgnetctl {__version__}", f"cgnetd   {daemon or style.faint('does not answer')}"]
    if daemon and daemon != __version__:
        lines.append(style.doubtful("the two differ: restart cgnetd to run the installed version"))
    return Answer({"cgnetctl": __version__, "cgnetd": daemon}, tuple(lines))
