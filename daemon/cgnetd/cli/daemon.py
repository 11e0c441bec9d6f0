# SPDX-License-Identifier: Apache-2.0
"""`cgnetd`: the daemon's command line. Turns it into settings and hands them to the service.

Must not know how the daemon does its work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cgnetd import __version__
from cgnetd.cli import term
from cgnetd.cli.ctl import Parser

if TYPE_CHECKING:
    from cgnetd.service.settings import Settings

PROGRAM = "cgnetd"


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    return term.hand_over(PROGRAM, lambda: _run(words))


def _run(words: list[str]) -> int:
    args = parser().parse_args(words)
    if args.worker:
        from cgnetd.cli.worker import work

        return work(args.worker)
    from cgnetd.service.settings_files import load_settings  # late: --help and --version need none of it

    def read_settings() -> Settings:
        return load_settings(args.config, overrides(args))

    settings = read_settings()
    from cgnetd.service.main import run

    return run(settings, read_settings=read_settings, once=args.once, dry_run=args.dry_run, say=term.say)


def parser() -> argparse.ArgumentParser:
    found = Parser(PROGRAM, description="cgroup network policy daemon, in the foreground", allow_abbrev=False)
    found.add_argument("--config", metavar="FILE", help="settings; default: /etc/cgnetd/cgnetd.yaml and its drop-ins")
    found.add_argument(
        "--policy-dir", metavar="DIR", action="append", help="policies; repeatable, replaces the configured list"
    )
    found.add_argument("--pin-dir", metavar="DIR", help="where programs and tables are pinned, on a bpffs")
    found.add_argument("--cgroup-root", metavar="DIR", help="root of the managed tree; default: found")
    found.add_argument("--control-socket", metavar="PATH", help="where cgnetctl finds the daemon")
    found.add_argument("--audit", choices=("auto", "stdout", "journal"), help="where events go")
    found.add_argument(
        "--default-action", choices=("allow", "deny"), help="when no policy of a governed cgroup decides"
    )
    found.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any other setting, by its dotted key"
    )
    found.add_argument("--once", action="store_true", help="one pass, then exit; what is in force stays")
    found.add_argument("--dry-run", action="store_true", help="say what a pass would do, change nothing")
    found.add_argument(
        "--worker", choices=("prober", "sockets"), help="serve the daemon; started by cgnetd-NAME.socket, not by hand"
    )
    found.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return found


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names, by dotted key. Raises UsageError."""
    from cgnetd.service.settings_files import parse_override

    found = dict(parse_override(text) for text in args.set)
    paths = {"pin_dir": args.pin_dir, "cgroup_root": args.cgroup_root, "control_socket": args.control_socket}
    found |= {key: os.path.abspath(path) for key, path in paths.items() if path}
    if args.policy_dir:
        found["policy_dirs"] = [os.path.abspath(path) for path in args.policy_dir]
    if args.audit:
        found["audit.sink"] = args.audit
    if args.default_action:
        found["default_action"] = args.default_action
    return found
