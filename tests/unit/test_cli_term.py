# SPDX-License-Identifier: Apache-2.0
"""What reaches the terminal: names that are no text, names that would steer it, a stdout that takes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cgnetd.cli import term
from cgnetd.cli.answer import Answer, Stream, Style

NAME = os.fsdecode(b"/app/\xff\x1b[2J\x1b]0;x\x07\n")


def answer(style: Style) -> Answer:
    return Answer({"name": NAME}, (NAME, Style(colour=True).bad("red")))


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert term.run("cgnetctl", False, answer) == 0
    hostile, red = capsys.readouterr().out.splitlines()
    assert hostile == r"/app/\udcff\x1b[2J\x1b]0;x\x07\x0a"
    assert red == "\x1b[31mred\x1b[0m"


def test_followed_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    term.run("cgnetctl", False, lambda _: Stream(iter([{"name": NAME}]), lambda item: str(item["name"])))
    assert capsys.readouterr().out == "/app/\\udcff\\x1b[2J\\x1b]0;x\\x07\\x0a\n"


@pytest.mark.parametrize("stream", [False, True])
def test_json_is_json_whatever_names_are(stream: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def streamed(style: Style) -> Stream:
        return Stream(iter([{"name": NAME}]), str)

    term.run("cgnetctl", True, streamed if stream else answer)
    assert json.loads(capsys.readouterr().out)["name"] == NAME


def test_full_stdout_is_an_error_and_no_traceback() -> None:
    code = "import sys; from cgnetd.cli.ctl import main; sys.exit(main(['check', '--config', '/dev/null']))"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert (done.returncode, done.stderr) == (1, "cgnetctl: error: write to stdout: No space left on device\n")
