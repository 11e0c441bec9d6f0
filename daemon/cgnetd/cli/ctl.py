# SPDX-License-Identifier: Apache-2.0
"""`cgnetctl`: the command line for people. Finds the verb and hands over; what is answered is printed by `term`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn, Protocol, cast

from cgnetd.cli import term
from cgnetd.cli.answer import Answer, Stream, Style
from cgnetd.errors import UsageError

PROGRAM = "cgnetctl"


class Verb(Protocol):
    """What a module must have to be a verb."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, style: Style) -> Answer | Stream: ...


VERBS = ("check", "explain", "status", "events", "diff", "reload", "flush", "version")  # modules of this package

# Part of the language already, so that nobody takes the name of one for a misspelling.
LATER_VERBS = ("test", "render", "apply", "confirm", "top", "sockets", "features", "panic")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing and exiting by itself (--help aside)."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    return term.run(PROGRAM, term.wants_json(words), lambda style: _perform(words, style))


def _perform(words: list[str], style: Style) -> Answer | Stream:
    verbs = _meant(words)
    args, rest = parser(verbs).parse_known_args(words)
    if args.verb in LATER_VERBS:
        raise UsageError(f"{args.verb}: not supported yet by this version")
    if rest:
        raise UsageError(f"unrecognized arguments: {' '.join(rest)}; see {PROGRAM} {args.verb} --help")
    return verbs[args.verb].run(args, style)


def _meant(words: Sequence[str]) -> dict[str, Verb]:
    """The verbs among the words, by name, or else all: importing all of them takes longer than most of them do."""
    named = [name for name in VERBS if name in words]
    wanted = VERBS if not named or "-h" in words or "--help" in words else named
    return {name: cast(Verb, import_module(f"cgnetd.cli.{name}")) for name in wanted}


def parser(meant: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """The grammar, of verbs that are not `meant` only the names. Common options are taken before and after the verb."""
    found = Parser(
        PROGRAM, description="Look at and steer cgnetd, the cgroup network policy daemon.", allow_abbrev=False
    )
    _add_common(found, None)
    verbs = found.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for name in VERBS:
        verb = meant.get(name)
        if verb is None:
            verbs.add_parser(name, add_help=False)
            continue
        below = verbs.add_parser(name, help=verb.HELP, description=verb.HELP, allow_abbrev=False)
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
