# SPDX-License-Identifier: Apache-2.0
"""The rpm: it holds what the deb holds, and rpm installs, upgrades and removes it in a booted machine.

The machine is a Debian, whose own modules serve it: what it depends on goes by other names there and is not looked up.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from beds import packages, shell, trees
from beds.errors import BedError, LackingError
from system.packaged import APT_TIMEOUT_S, DENIED, POLICY, Host
from system.service import UNIT

DISTRO = trees.DISTROS["trixie"]
LET_THROUGH = "ECONNREFUSED"  # by the loopback itself
NEW, OLD = "/root/new.rpm", "/root/old.rpm"
# What only one kind of package has: licences, changelog and copyright in places of its own.
OF_ONE_KIND = ("/usr/share/licenses/", "/usr/share/lintian/", "/usr/share/python3/", "/usr/share/doc/cgnetd/c")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """With rpm, and what cgnetd depends on."""
    try:
        built, (new, old) = packages.built(DISTRO), packages.built_rpm(DISTRO)
        layer = packages.ready(DISTRO, built.depends, "rpm")
    except LackingError as error:
        pytest.skip(str(error))
    except BedError as error:
        pytest.fail(f"build the package: {error}", pytrace=False)
    with shell.machine(DISTRO, bare=layer) as machine:
        made = Host(machine, built)
        machine.path(NEW).write_bytes(new.read_bytes())
        machine.path(OLD).write_bytes(old.read_bytes())
        yield made


def rpm(host: Host, *words: str) -> str:
    return host.machine.run("rpm", "--nodeps", *words, timeout=APT_TIMEOUT_S)


def test_rpm_holds_the_files_of_the_deb(host: Host) -> None:
    query = r"[%{FILEMODES:perms} %{FILENAMES}\n]"
    of_rpm = host.machine.run("rpm", "-qp", "--queryformat", query, NEW).splitlines()
    of_deb = host.machine.run("sh", "-c", f"dpkg-deb --fsys-tarfile {host.new} | tar --list --verbose").splitlines()
    found = files(of_rpm)
    assert found == files(of_deb)
    assert len(found) > 200


def files(listed: list[str]) -> dict[str, str]:
    """Mode by name of what both kinds of package should have, as the other one would call it."""
    found = {}
    for line in listed:
        mode, *_, name = line.split()
        name = name.removeprefix(".").removesuffix(".gz").replace("/doc/cgnetd-0.1.0/", "/doc/cgnetd/")
        name = name.replace("/zsh/site-functions/", "/zsh/vendor-completions/")
        # Debian makes byte code when it installs.
        if not mode.startswith("d") and "/__pycache__/" not in name and not name.startswith(OF_ONE_KIND):
            found[name] = mode
    return found


def test_rpm_is_installed_upgraded_and_removed_with_every_call_denied_until_then(host: Host) -> None:
    run = host.machine.run
    rpm(host, "--install", OLD)
    assert host.machine.try_run("systemctl", "is-active", UNIT).stdout == "inactive\n"
    host.service.policy("caller", POLICY)
    run("systemctl", "enable", "--now", UNIT)
    assert host.dial() == DENIED
    before = host.service.status()["pid"]
    run("sh", "-c", "echo '# edited' >>/etc/cgnetd/cgnetd.yaml")
    host.keep_calling()
    rpm(host, "--upgrade", NEW)
    calls, escapes = host.end_calling()
    assert (calls > 100, escapes) == (True, 0)
    assert host.service.status()["pid"] != before
    assert host.dial() == DENIED
    assert host.machine.path("/etc/cgnetd/cgnetd.yaml").read_text(encoding="utf-8").endswith("# edited\n")

    rpm(host, "--erase", "cgnetd")
    assert host.dial() == LET_THROUGH
    assert (host.attached(), host.pins(), host.units()) == ({}, [], set())
    assert host.machine.path("/etc/cgnetd/policy.d/caller.yaml").exists()
    assert not host.machine.path("/usr/lib/cgnetd").exists()
