# SPDX-License-Identifier: Apache-2.0
"""Where cgnetd stands in a boot: before whatever sets up the network, in no cycle, and without D-Bus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beds.machine import Machine
from system.conftest import Boot
from system.service import UNIT, Service, eventually

SHUT = 2222
DENIED = "EHOSTUNREACH"
LOADED = "0cd110a02e364749b79a768c0c70a9bc"  # see docs/events.md
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: victim}}
spec:
  subject: {{units: [victim.service]}}
  egress: [{{name: rest, action: deny, errno: {DENIED}}}]
"""
VICTIM = f"""\
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /usr/lib/dial.py {SHUT}
StandardOutput=truncate:/run/victim.txt
"""
SERVICE = "\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
# The order of units that set up networks, as their projects ship them.
NETWORK = {
    "cloud-init-local.service": """\
[Unit]
DefaultDependencies=no
Wants=network-pre.target
After=systemd-remount-fs.service
Before=NetworkManager.service systemd-networkd.service network-pre.target sysinit.target shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=/var/lib/cloud
""",
    "cloud-init.service": """\
[Unit]
DefaultDependencies=no
Wants=cloud-init-local.service sshd-keygen.service
After=cloud-init-local.service systemd-networkd-wait-online.service networking.service
Before=network-online.target sshd.service sysinit.target systemd-user-sessions.service shutdown.target
Conflicts=shutdown.target
""",
    "NetworkManager.service": """\
[Unit]
Wants=network.target
After=network-pre.target dbus.service
Before=network.target
""",
    "nftables.service": """\
[Unit]
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
""",
    "networking.service": """\
[Unit]
DefaultDependencies=no
Requires=systemd-sysctl.service
Wants=network.target
After=local-fs.target network-pre.target systemd-sysctl.service
Before=network.target shutdown.target network-online.target
Conflicts=shutdown.target
""",
}
WANTED_BY = dict.fromkeys(NETWORK, "multi-user.target") | {
    "cloud-init-local.service": "sysinit.target",
    "cloud-init.service": "sysinit.target",
    "nftables.service": "sysinit.target",
    "networking.service": "sysinit.target",
}


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def enable(root: Path, unit: str, target: str, source: str) -> None:
    wanted = root / f"etc/systemd/system/{target}.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    (wanted / unit).symlink_to(source)


def prepare(root: Path) -> None:
    """cgnetd enabled, with a policy and its victim."""
    put(root, "etc/cgnetd/policy.d/victim.yaml", POLICY)
    put(root, "etc/systemd/system/victim.service", VICTIM)
    put(root, "usr/lib/dial.py", Service.DIAL[1])
    enable(root, UNIT, "sysinit.target", f"/usr/lib/systemd/system/{UNIT}")


def prepare_network(root: Path) -> None:
    prepare(root)
    for name, text in NETWORK.items():
        put(root, f"etc/systemd/system/{name}", text + SERVICE)
        enable(root, name, WANTED_BY[name], f"/etc/systemd/system/{name}")
    enable(root, "systemd-networkd.service", "multi-user.target", "/lib/systemd/system/systemd-networkd.service")


def prepare_without_bus(root: Path) -> None:
    prepare(root)
    for unit in ("dbus.service", "dbus.socket", "dbus-org.freedesktop.login1.service"):
        (root / "etc/systemd/system").mkdir(parents=True, exist_ok=True)
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")


@pytest.fixture(scope="module")
def networked(boot: Boot) -> Iterator[Machine]:
    with boot(prepare_network) as made:
        yield made


def verdict(machine: Machine) -> str:
    """Of a call of victim.service, which is started without any bus."""
    machine.run("systemctl", "start", "victim.service")
    return machine.path("/run/victim.txt").read_text(encoding="utf-8").strip()


def began(machine: Machine, unit: str) -> int:
    """When a unit became active, in microseconds of the monotonic clock; 0: never."""
    told = machine.run("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "--value", unit)
    return int(told)


def started(machine: Machine, unit: str) -> int:
    """When a unit's start began."""
    told = machine.run("systemctl", "show", "--property=InactiveExitTimestampMonotonic", "--value", unit)
    return int(told)


def test_no_job_was_dropped_to_break_a_cycle(networked: Machine) -> None:
    told = [one["MESSAGE"] for one in networked.journal("_PID=1")]
    assert not [line for line in told if "cycle" in line.lower()]


def test_units_verify_with_all_that_sets_up_networks(networked: Machine) -> None:
    done = networked.try_run("systemd-analyze", "verify", "--man=no", UNIT, "default.target")
    about = [line for line in (done.stdout + done.stderr).splitlines() if "cgnetd" in line or "cycle" in line]
    assert about == []


@pytest.mark.parametrize("unit", ["NetworkManager.service", "networking.service", "systemd-networkd.service"])
def test_policies_are_in_force_before_the_network_is_set_up(networked: Machine, unit: str) -> None:
    ready, begun = began(networked, UNIT), started(networked, unit)
    assert ready
    assert begun, networked.run("systemctl", "status", "--no-pager", unit)
    assert ready <= begun


def test_boot_is_as_complete_as_without_cgnetd(networked: Machine) -> None:
    failed = networked.run("systemctl", "list-units", "--state=failed", "--no-legend", "--plain").split("\n")
    assert [line for line in failed if "cgnetd" in line] == []
    for unit in NETWORK:
        assert began(networked, unit), unit
    assert verdict(networked) == DENIED


def test_boot_without_a_bus_enforces(boot: Boot) -> None:
    with boot(prepare_without_bus) as machine:
        assert machine.try_run("systemctl", "is-active", "dbus.service").stdout.strip() != "active"
        assert machine.run("systemctl", "is-active", UNIT).strip() == "active"
        assert verdict(machine) == DENIED


def test_bus_that_died_does_not_keep_it_from_starting_and_reloading(service: Service) -> None:
    machine = service.machine
    service.policy("victim", POLICY)
    machine.write("/run/systemd/system/victim.service", VICTIM.replace("/usr/lib/dial.py", Service.DIAL[0]))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        service.start()
        assert verdict(machine) == DENIED
        service.policy("victim", POLICY.replace(f"deny, errno: {DENIED}", "allow"))
        machine.run("systemctl", "reload", UNIT)
        assert verdict(machine) == "ECONNREFUSED"
        eventually(lambda: service.own_journal(f"--unit={UNIT}", f"MESSAGE_ID={LOADED}"), "the journal")
    finally:
        machine.run("systemctl", "start", "dbus.socket")
        machine.path("/run/systemd/system/victim.service").unlink()
        machine.run("systemctl", "daemon-reload")
