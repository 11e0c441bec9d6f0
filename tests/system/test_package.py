# SPDX-License-Identifier: Apache-2.0
"""The Debian package, built from the checkout; installed, upgraded, removed and purged by apt in a booted machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from beds import trees
from system.conftest import Boot
from system.packaged import CALLER, DENIED, PINS, POLICY, PROBED, Host, fresh_host
from system.service import UNIT, eventually

LET_THROUGH = "ECONNREFUSED"  # by the loopback itself
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


@pytest.fixture(scope="module")
def booted(boot: Boot, distro: trees.Distro) -> Iterator[Host]:
    with fresh_host(boot, distro) as host:
        yield host


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


def test_removal_ends_everything_but_the_policies(installed: Host) -> None:
    installed.service.policy("probed", PROBED)
    eventually(
        lambda: [unit for unit in installed.units() if unit.startswith("cgnetd-prober@")], "a worker that probes"
    )
    assert installed.attached()
    installed.apt("remove", "cgnetd")
    assert installed.dial() == LET_THROUGH
    assert (installed.attached(), installed.pins(), installed.units()) == ({}, [], set())
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
    assert (host.attached(), host.pins(), host.units()) == ({}, [], set())
