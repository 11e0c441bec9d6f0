# SPDX-License-Identifier: Apache-2.0
"""What is shipped beside the programs says the same as they do: completions, manual pages, catalog."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import cast

import pytest

from cgnetd.cli import ctl, daemon
from cgnetd.cli.endpoint import HOOKS, KINDS
from cgnetd.policy.load import Source, parse
from cgnetd.policy.models import KINDS as DOCUMENTS

PACKAGING = Path(__file__).parents[2] / "packaging"
COMPLETIONS = sorted(path for path in (PACKAGING / "completions").iterdir())
PAGES = sorted((PACKAGING / "man").iterdir())


def complete(*words: str) -> list[str]:
    """What bash offers for the last word of a command line of cgnetctl."""
    script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cgnetctl; printf "%s\\n" "${COMPREPLY[@]}"'
    source = str(PACKAGING / "completions" / "cgnetctl.bash")
    done = subprocess.run(["bash", "-c", script, source, *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


def verb_parsers() -> list[argparse.ArgumentParser]:
    """The grammar of each verb that there is."""
    verbs = {name: cast(ctl.Verb, import_module(f"cgnetd.cli.{name}")) for name in ctl.VERBS}
    (below,) = (action for action in ctl.parser(verbs)._actions if isinstance(action, argparse._SubParsersAction))
    return [below.choices[name] for name in ctl.VERBS]


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    """Their names, without dashes."""
    options = (option for action in parser._actions for option in action.option_strings)
    return {option.removeprefix("--") for option in options if option.startswith("--")}


@pytest.mark.parametrize("path", COMPLETIONS, ids=lambda path: path.name)
def test_completion_knows_every_verb_and_hook(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [word for word in (*ctl.VERBS, *HOOKS) if not re.search(rf"\b{word}\b", text)] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_hooks_and_kinds_of_sockets() -> None:
    assert complete("cgnetctl", "") == list(ctl.VERBS)
    assert complete("cgnetctl", "explain", "/a", "") == list(HOOKS)
    assert complete("cgnetctl", "explain", "/a", "create", "") == list(KINDS)
    assert "unix" in complete("cgnetctl", "explain", "/a", "connect", "")
    assert "raw" in complete("cgnetctl", "explain", "/a", "socket", "")
    assert "--policy-dir" in complete("cgnetctl", "diff", "--")


@pytest.mark.parametrize("path", COMPLETIONS, ids=lambda path: path.name)
def test_completion_knows_every_option_and_kind_of_socket(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    mark = "-l " if path.suffix == ".fish" else "--"  # as it is written there
    options = {option for verb in verb_parsers() for option in long_options(verb)} - {"help"}
    assert {option for option in options if not re.search(rf"{mark}{option}(?![-a-z])", text)} == set()
    kinds = set(KINDS) if "{inet,inet6}/{stream,dgram,raw,other}" not in text else set()  # which a shell expands
    assert {kind for kind in kinds if not re.search(rf"\b{kind}\b", text)} == set()


@pytest.mark.parametrize("page", ["cgnetctl.1", "cgnetd.8"])
def test_manual_page_tells_every_option(page: str) -> None:
    text = (PACKAGING / "man" / page).read_text(encoding="utf-8")
    parsers = verb_parsers() if page == "cgnetctl.1" else [daemon.parser()]
    options = {option for found in parsers for option in long_options(found)} - {"help"}
    assert {option for option in options if not re.search(rf"\.(It )?Fl (\w , )?-{option}(?![-a-z])", text)} == set()


def test_manual_page_tells_every_verb_and_hook() -> None:
    text = (PACKAGING / "man" / "cgnetctl.1").read_text(encoding="utf-8")
    assert [verb for verb in ctl.VERBS if f".It Cm {verb}" not in text] == []
    assert [hook for hook in HOOKS if not re.search(rf"\b{hook}\b", text)] == []


def test_manual_page_tells_every_kind_of_document() -> None:
    text = (PACKAGING / "man" / "cgnetd.policy.5").read_text(encoding="utf-8")
    assert [kind for kind in DOCUMENTS if f"kind: {kind}" not in text] == []


def test_documents_in_the_manual_page_are_valid() -> None:
    text = (PACKAGING / "man" / "cgnetd.policy.5").read_text(encoding="utf-8")
    documents = text.partition(".Bd -literal\n")[2].partition(".Ed")[0].encode()
    result = parse([Source("cgnetd.policy.5", documents)], read_set=lambda _: b"", find_user=len)
    assert (result.problems, result.warnings) == ((), ())


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_manual_page_is_free_of_faults(path: Path) -> None:
    done = subprocess.run(
        ["groff", "-mdoc", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
