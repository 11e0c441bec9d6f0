# SPDX-License-Identifier: Apache-2.0
"""The terminal: the one module of cgnetd that prints answers and errors and turns them into exit codes.

Must not know what any verb does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from cgnetd.cli.answer import Answer, Stream, Style
from cgnetd.cli.problems import error_data
from cgnetd.errors import CgnetdError

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

Command = Callable[[Style], "Answer | Stream"]


def run(program: str, as_json: bool, command: Command) -> int:
    """Run `command`, print its answer to stdout and its errors to stderr, and return the exit code for the process.

    A CgnetdError becomes its message and its exit code; any other exception is a defect and keeps its traceback.
    """
    return hand_over(program, lambda: _show(command(_style(sys.stdout)), as_json), as_json)


def hand_over(program: str, command: Callable[[], int], as_json: bool = False) -> int:
    """The same for a command that has nothing to print but its errors; it returns the exit code."""
    try:
        return command()
    except CgnetdError as error:
        _show_error(program, error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough. stdout must not be flushed at exit: that would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def say(line: str) -> None:
    """One line for whoever started us, at once."""
    print(line, flush=True)


def wants_json(arguments: list[str]) -> bool:
    """Whether --json stands among `arguments`: known before they are parsed, so that usage errors are JSON too."""
    return "--json" in arguments


def _show(answer: Answer | Stream, as_json: bool) -> int:
    if isinstance(answer, Stream):
        for item in answer.items:
            print(_compact(item) if as_json else answer.line(item), flush=True)
    elif as_json:
        print(json.dumps(answer.data, indent=2, ensure_ascii=False))
    else:
        for line in answer.lines:
            print(line)
    sys.stdout.flush()  # a broken pipe shows here, not at exit
    return answer.exit_code


def _show_error(program: str, error: CgnetdError, as_json: bool) -> None:
    if as_json:
        print(_compact({"error": error_data(error)}))
        return
    style = _style(sys.stderr)
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"{program}: {style.bad('error')}: {line}", file=sys.stderr)


def _style(stream: TextIO) -> Style:
    return Style(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def _compact(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
