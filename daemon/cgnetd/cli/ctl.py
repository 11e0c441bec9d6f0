# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl`: the command line for people. Finds the verb and hands over; what is answered is printed by `term`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from cgnetd.cli import check, events, explain, flush, reload, status, term, version
from cgnetd.cli.answer import Answer, Stream, Style
from cgnetd.errors import UsageError

PROGRAM = "cgnetctl"


class Verb(Protocol):
    """What a module must have to be a verb."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, style: Style) -> Answer | Stream: ...


VERBS = tuple(cast(Verb, module) for module in (check, explain, status, events, reload, flush, version))

# Part of the language already, so that nobody takes the name of one for a misspelling.
LATER_VERBS = ("test", "diff", "render", "apply", "confirm", "top", "sockets", "features", "panic")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing and exiting by itself (--help aside)."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    return term.run(PROGRAM, term.wants_json(words), lambda style: _perform(words, style))


def _perform(words: list[str], style: Style) -> Answer | Stream:
    args, rest = parser().parse_known_args(words)
    if args.verb in LATER_VERBS:
        raise UsageError(f"{args.verb}: not supported yet by this version")
    if rest:
        raise UsageError(f"unrecognized arguments: {' '.join(rest)}; see {PROGRAM} {args.verb} --help")
    verb = next(verb for verb in VERBS if args.verb == verb.NAME)
    return verb.run(args, style)


def parser() -> argparse.ArgumentParser:
    """The whole grammar. The common options are taken before and after the verb."""
    found = Parser(
        PROGRAM, description="Look at and steer cgnetd, the cgroup network policy daemon.", allow_abbrev=False
    )
    _add_common(found, None)
    verbs = found.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for verb in VERBS:
        below = verbs.add_parser(verb.NAME, help=verb.HELP, description=verb.HELP, allow_abbrev=False)
        _add_common(below, argparse.SUPPRESS)  # given after the verb it wins, not given it leaves the first one
        verb.add_arguments(below)
    for name in LATER_VERBS:
        verbs.add_parser(name, add_help=False)
    return found


def _add_common(to: argparse.ArgumentParser, default: object) -> None:
    to.add_argument(
        "--control-socket", metavar="PATH", default=default, help="where cgnetd listens; default: as configured"
    )
    to.add_argument("--config", metavar="FILE", default=default, help="settings; default: /etc/cgnetd/cgnetd.yaml")
    json_default = default if default is argparse.SUPPRESS else False
    to.add_argument("--json", action="store_true", default=json_default, help="answer in JSON")
