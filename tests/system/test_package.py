# SPDX-License-Identifier: Apache-2.0
"""The Debian package, built from the checkout; installed, upgraded, removed and purged by apt in a booted machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from beds import packages, trees
from beds.errors import BedError, LackingError
from beds.packages import Built
from system.conftest import Boot
from system.packaged import CALLER, DENIED, PINS, POLICY, Host
from system.service import UNIT, eventually

LET_THROUGH = "ECONNREFUSED"  # by the loopback itself
# Besides what cgnetd depends on: the victim, its client, and who reads manual pages and completions.
OTHERS = ("nginx", "curl", "man-db", "bash-completion", "zsh", "fish")
UPSTREAM, FOREIGN = 8081, 8082
NGINX = f"""\
server {{
    listen 127.0.0.1:80;
    location /upstream/ {{ proxy_pass http://127.0.0.1:{UPSTREAM}/; }}
    location /foreign/ {{ proxy_pass http://127.0.0.1:{FOREIGN}/; }}
}}
"""
WEB = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: web}}
spec:
  subject: {{units: [nginx.service]}}
  egress:
    - {{name: upstream, action: allow, to: [localhost], ports: [{UPSTREAM}]}}
    - {{name: rest, action: deny}}
"""
MANUALS = ("cgnetd.8", "cgnetctl.1", "cgnetd.yaml.5", "cgnetd.policy.5")


@pytest.fixture(scope="module")
def built(distro: trees.Distro) -> Built:
    try:
        return packages.built(distro)
    except LackingError as error:
        pytest.skip(str(error))
    except BedError as error:
        pytest.fail(f"build the package: {error}", pytrace=False)


@pytest.fixture(scope="module")
def booted(boot: Boot, distro: trees.Distro, built: Built) -> Iterator[Host]:
    """A machine that cgnetd never was in."""
    with boot(bare=packages.ready(distro, built.depends, *OTHERS)) as machine:
        for user in ("alice", "bob"):  # of an example
            machine.run("useradd", user)
        yield Host(machine, built)


@pytest.fixture
def host(booted: Host) -> Iterator[Host]:
    """Without cgnetd, before and after."""
    yield booted
    booted.machine.run("sh", "-c", f"systemctl stop {CALLER} 2>/dev/null; systemctl reset-failed")
    booted.purge()


@pytest.fixture
def installed(host: Host) -> Host:
    """Installed, with a policy in force that denies the caller everything."""
    host.install(host.new)
    put_in_force(host)
    return host


def put_in_force(host: Host) -> None:
    host.service.policy("caller", POLICY)
    host.machine.run("cgnetctl", "reload")
    assert host.dial() == DENIED


def test_installed_started_and_edited_it_shows_the_denial_in_the_journal_of_nginx(host: Host) -> None:
    machine = host.machine
    machine.write("/etc/nginx/conf.d/upstreams.conf", NGINX)
    for port in (UPSTREAM, FOREIGN):
        server = ("python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/var/lib", str(port))
        machine.run("systemd-run", "--quiet", "--collect", f"--unit=upstream-{port}", *server)
    machine.run("systemctl", "restart", "nginx")
    eventually(lambda: fetch(host, "upstream") == fetch(host, "foreign") == "200", "nginx with its upstreams")

    host.apt("install", host.new)
    machine.run("systemctl", "start", "cgnetd")
    machine.write("/etc/cgnetd/policy.d/web.yaml", WEB)

    eventually(lambda: fetch(host, "foreign") == "502", "the denial by a policy that was only saved")
    assert fetch(host, "upstream") == "200"
    told = eventually(
        lambda: re.findall(r"^denied nginx.*$", machine.run("journalctl", "-u", "nginx", "-o", "cat"), re.MULTILINE),
        "the denial in journalctl -u nginx",
    )
    assert any(f"127.0.0.1:{FOREIGN}" in line and "web.yaml:8" in line for line in told), told

    machine.write("/etc/cgnetd/policy.d/web.yaml", WEB.replace(str(UPSTREAM), f"{UPSTREAM}-{FOREIGN}"))
    eventually(lambda: fetch(host, "foreign") == "200", "what the edited policy allows")
    machine.run("systemctl", "stop", f"upstream-{UPSTREAM}", f"upstream-{FOREIGN}")
    machine.run("rm", "/etc/nginx/conf.d/upstreams.conf")


def fetch(host: Host, place: str) -> str:
    """The status that nginx answers with."""
    words = ("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}")
    return host.machine.try_run(*words, f"http://127.0.0.1/{place}/").stdout


def test_installation_enables_and_starts_it(host: Host) -> None:
    host.install(host.new)
    run = host.machine.run
    assert run("systemctl", "is-enabled", UNIT) == "enabled\n"
    assert run("systemctl", "is-active", UNIT) == "active\n"
    assert "failed" not in run("systemctl", "list-units", "--all", "--no-legend", "cgnetd*")
    assert not host.machine.path("/run/cgnetd/installing").exists()


def test_installed_units_have_no_mistakes(host: Host) -> None:
    host.install(host.new)
    units = host.machine.run(
        "sh", "-c", "dpkg --listfiles cgnetd | grep -E '/system/[^/]+[.](service|socket)$'"
    ).split()
    assert UNIT in {Path(unit).name for unit in units}
    done = host.machine.try_run("systemd-analyze", "verify", *(unit.replace("@.", "@1.") for unit in units))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_manual_pages_are_found_and_render_without_warnings(host: Host) -> None:
    host.install(host.new)
    for manual in MANUALS:
        name, _, section = manual.rpartition(".")
        done = host.machine.try_run("man", "--warnings", section, name)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{name.upper()}({section})")


def test_completions_are_loaded_and_know_every_verb(host: Host) -> None:
    host.install(host.new)
    run = host.machine.run
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
    assert set(re.findall(r"'([a-z]+):[^']+'$", function, re.MULTILINE)) >= verbs


def test_installed_files_are_complete_and_of_use(host: Host) -> None:
    host.install(host.new)
    run = host.machine.run
    assert "cgnetd: A network call was denied by policy" in run("journalctl", "--list-catalog")
    assert re.fullmatch(r"cgnetd:x:\d+:\n", run("getent", "group", "cgnetd"))
    for directory, mode in {"/run/cgnetd": "755", "/var/lib/cgnetd": "700", PINS: "700"}.items():
        assert run("stat", "--format=%a %U", directory) == f"{mode} root\n"
    schema = json.loads(host.machine.path("/usr/share/cgnetd/policy.schema.json").read_text(encoding="utf-8"))
    assert "$schema" in schema
    assert not list(host.machine.path("/etc/cgnetd/policy.d").iterdir())
    examples = run("find", "/usr/share/doc/cgnetd/examples", "-name", "*.yaml").split()
    assert len(examples) > 10
    run("cp", "-r", "/usr/share/doc/cgnetd/examples/sets", "/etc/cgnetd/")
    for example in examples:
        run("cgnetctl", "check", example)


def test_upgrade_denies_every_call_meanwhile(host: Host) -> None:
    host.install(host.old)
    put_in_force(host)
    host.machine.run("sh", "-c", "echo '# edited' >>/etc/cgnetd/cgnetd.yaml")
    before = host.service.status()["pid"]
    host.keep_calling()
    host.install(host.new)
    assert host.dial() == DENIED
    host.install(host.new, "--reinstall")
    host.install(host.old, "--allow-downgrades")
    host.install(host.new)
    calls, escapes = host.end_calling()
    assert (calls > 100, escapes) == (True, 0)
    assert host.service.status()["pid"] != before
    assert host.dial() == DENIED
    assert host.machine.path("/etc/cgnetd/cgnetd.yaml").read_text(encoding="utf-8").endswith("# edited\n")


def test_upgrade_leaves_a_stopped_daemon_stopped_and_its_policies_in_force(installed: Host) -> None:
    installed.machine.run("systemctl", "stop", UNIT)
    installed.install(installed.new, "--reinstall")
    assert installed.service.show("ActiveState") == {"ActiveState": "inactive"}
    assert installed.dial() == DENIED


def test_removal_flushes_and_keeps_the_policies(installed: Host) -> None:
    assert installed.attached()
    installed.apt("remove", "cgnetd")
    assert installed.dial() == LET_THROUGH
    assert (installed.attached(), installed.pins()) == ({}, [])
    assert installed.machine.path("/etc/cgnetd/policy.d/caller.yaml").exists()
    assert not installed.machine.path("/usr/lib/cgnetd").exists()
    installed.install(installed.new)
    assert installed.dial() == DENIED


def test_removal_with_settings_that_cannot_be_read_flushes(installed: Host) -> None:
    installed.service.settings("no_such_setting: 1\n")
    installed.apt("remove", "cgnetd")
    assert installed.dial() == LET_THROUGH
    assert (installed.attached(), installed.pins()) == ({}, [])


def test_removal_that_cannot_flush_is_refused_and_told(installed: Host) -> None:
    run = installed.machine.run
    run("systemctl", "stop", UNIT)
    run("systemd-run", "--quiet", "--unit=holder", "flock", PINS, "sleep", "infinity")
    eventually(lambda: installed.machine.try_run("flock", "--nonblock", PINS, "true").returncode, "the lock")
    done = installed.try_apt("remove", "cgnetd")
    assert done.returncode != 0
    assert "not removed, for its policies are still in force" in done.stdout
    run("systemctl", "stop", "holder")
    assert installed.dial() == DENIED
    installed.apt("remove", "cgnetd")
    assert installed.dial() == LET_THROUGH


def test_purge_leaves_no_trace(host: Host) -> None:
    before = host.inventory()
    host.install(host.new)
    put_in_force(host)
    host.machine.run("cgnetctl", "status")
    host.apt("purge", "cgnetd")
    after = host.inventory()
    assert sorted(set(after) - set(before)) == []
    assert sorted(set(before) - set(after)) == []
    assert (host.attached(), host.pins()) == ({}, [])
    assert "cgnetd" not in host.machine.run("systemctl", "list-units", "--all", "--no-legend", "--no-pager")
