# SPDX-License-Identifier: Apache-2.0
"""What the Debian package puts into a booted machine, and whether those find it who should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from beds import trees
from beds.install import TOP
from system.conftest import Boot
from system.packaged import PINS, Host, fresh_host
from system.service import UNIT

MANUALS = ("cgnetd.8", "cgnetctl.1", "cgnetd.yaml.5", "cgnetd.policy.5")


@pytest.fixture(scope="module")
def installed(boot: Boot, distro: trees.Distro) -> Iterator[Host]:
    """Installed a moment ago, and left as it came."""
    with fresh_host(boot, distro) as host:
        host.install(host.new)
        yield host


def test_installation_enables_and_starts_it(installed: Host) -> None:
    run = installed.machine.run
    assert run("systemctl", "is-enabled", UNIT) == "enabled\n"
    assert run("systemctl", "is-active", UNIT) == "active\n"
    assert "failed" not in run("systemctl", "list-units", "--all", "--no-legend", "cgnetd*")
    assert not installed.machine.path("/run/cgnetd/installing").exists()
    assert installed.pins() == ["cgnetd"]


def test_installed_units_have_no_mistakes(installed: Host) -> None:
    units = installed.machine.run(
        "sh", "-c", "dpkg --listfiles cgnetd | grep -E '/system/[^/]+[.](service|socket)$'"
    ).split()
    assert UNIT in {Path(unit).name for unit in units}
    done = installed.machine.try_run("systemd-analyze", "verify", *(unit.replace("@.", "@1.") for unit in units))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_manual_pages_are_found_and_render_without_warnings(installed: Host) -> None:
    for manual in MANUALS:
        name, _, section = manual.rpartition(".")
        done = installed.machine.try_run("man", "--warnings", section, name)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{name.upper()}({section})")


def test_completions_are_loaded_and_know_every_verb(installed: Host) -> None:
    run = installed.machine.run
    verbs = set(re.findall(r"^    ([a-z]+)\b", run("cgnetctl", "--help"), re.MULTILINE))
    assert len(verbs) > 5
    by_bash = "source /usr/share/bash-completion/bash_completion; _completion_loader cgnetctl; " + (
        "COMP_WORDS=(cgnetctl ''); COMP_CWORD=1; _cgnetctl; printf '%s\n' \"${COMPREPLY[@]}\""
    )
    assert set(run("bash", "-c", by_bash).split()) == verbs
    assert {line.split("\t")[0] for line in run("fish", "-c", "complete -C 'cgnetctl '").splitlines()} == verbs
    # Without a terminal zsh completes nothing; what it describes is in the function that it loads.
    by_zsh = (
        "autoload -U compinit && compinit -D && print $_comps[cgnetctl] && autoload +X _cgnetctl && which _cgnetctl"
    )
    registered, _, function = run("zsh", "-fc", by_zsh).partition("\n")
    assert registered == "_cgnetctl"
    assert set(re.findall(r"'([a-z]+):[^']+'", function)) >= verbs


def test_installed_files_are_complete_and_of_use(installed: Host) -> None:
    run = installed.machine.run
    assert "cgnetd: A network call was denied by policy" in run("journalctl", "--list-catalog")
    assert re.fullmatch(r"cgnetd:x:\d+:\n", run("getent", "group", "cgnetd"))
    for directory, mode in {"/run/cgnetd": "755", "/var/lib/cgnetd": "700", PINS: "700"}.items():
        assert run("stat", "--format=%a %U", directory) == f"{mode} root\n"
    schemas = [path.name for path in (TOP / "config").glob("*.schema.json")]
    assert "policy.schema.json" in schemas
    for name in schemas:
        schema = json.loads(installed.machine.path(f"/usr/share/cgnetd/{name}").read_text(encoding="utf-8"))
        assert "$schema" in schema
    assert not list(installed.machine.path("/etc/cgnetd/policy.d").iterdir())
    examples = run("find", "/usr/share/doc/cgnetd/examples", "-name", "*.yaml").split()
    assert len(examples) > 10
    for user in ("alice", "bob"):  # of an example
        run("useradd", user)
    run("cp", "-r", "/usr/share/doc/cgnetd/examples/sets", "/etc/cgnetd/")
    for example in examples:
        run("cgnetctl", "check", example)
