# SPDX-License-Identifier: Apache-2.0
"""The units as they are shipped: how little they may, and that they do all of their work with it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from beds.machine import Machine
from system import hardening
from system.hardening import FIRST, PROBER, SECOND, SOCKETS
from system.service import UNIT, Service, eventually

PINS = "/sys/fs/bpf/cgnetd"
SHUT = 2222
PINS_LOST = "b137658ccc1041d4bd8d689ae8bedcd4"  # see docs/events.md


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> Machine:
    for path, text in hardening.PROGRAMS.items():
        machine.write(path, text)
    return machine


@pytest.fixture
def shipped(prepared: Machine, service: Service) -> Iterator[Service]:
    """Stopped, its workers too; afterwards nothing of what a test started or added to the units is left."""
    machine = service.machine
    # They end when they notice that who started them has gone.
    for name in ("prober", "sockets"):
        eventually(lambda name=name: not hardening.running_workers(machine, name), f"the end of each {name}")
    yield service
    machine.run("sh", "-c", "systemctl stop victim.service 'backend-*.service' || true")
    for unit in (UNIT, PROBER, SOCKETS):
        hardening.drop_in(machine, unit)
    machine.run("rm", "-rf", "/run/sets")


def exposure(machine: Machine, unit: str) -> float:
    """The overall figure of `systemd-analyze security`, of ten."""
    told = machine.run("systemd-analyze", "security", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])


@pytest.mark.parametrize(
    ("unit", "most"), [(UNIT, 2.0), ("cgnetd-prober@test.service", 1.2), ("cgnetd-sockets@test.service", 2.0)]
)
def test_exposure_is_low(machine: Machine, unit: str, most: float) -> None:
    assert exposure(machine, unit) <= most


def test_unit_files_have_no_mistakes(machine: Machine) -> None:
    units = [f"cgnetd-{name}{kind}" for name in ("prober", "sockets") for kind in (".socket", "@test.service")]
    done = machine.try_run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def of_worker(machine: Machine, pid: str) -> dict[str, str]:
    """The lines of /proc/PID/status; nothing while the process is still systemd's, with its rights."""
    lines = machine.run("cat", f"/proc/{pid}/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {} if status["Name"].startswith(("(", "systemd")) else status


def test_prober_has_no_rights(shipped: Service) -> None:
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.start()
    (unit,) = eventually(lambda: hardening.running_workers(shipped.machine, "prober"), "a prober")
    pid = shipped.machine.run("systemctl", "show", "--value", "--property=MainPID", unit).strip()
    status = eventually(lambda: of_worker(shipped.machine, pid), "the worker")
    assert "0" not in status["Uid"].split()
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_calls_go_to_the_backend_that_answers(shipped: Service) -> None:
    machine = shipped.machine
    first, second = hardening.serve(machine, FIRST), hardening.serve(machine, SECOND)
    shipped.policy("victim", hardening.policy(FIRST, SECOND))
    shipped.start()
    eventually(lambda: {hardening.call(machine) for _ in range(4)} == {FIRST, SECOND}, "calls to both")
    machine.run("systemctl", "stop", first)
    eventually(lambda: hardening.states(shipped) == {FIRST: "dead", SECOND: "alive"}, "the death of one")
    assert {hardening.call(machine) for _ in range(3)} == {SECOND}
    machine.run("systemctl", "stop", second)
    eventually(lambda: hardening.call(machine) == "ECONNREFUSED", "the death of both")
    hardening.serve(machine, FIRST)
    eventually(lambda: hardening.call(machine) == FIRST, "the first one again")


def test_prober_is_there_while_somebody_is_probed(shipped: Service) -> None:
    machine = shipped.machine
    shipped.policy("victim", hardening.policy(FIRST).replace("health:", "#"))
    shipped.start()
    assert not hardening.running_workers(machine, "prober")
    shipped.policy("victim", hardening.policy(FIRST))
    eventually(lambda: hardening.running_workers(machine, "prober"), "a prober")
    shipped.policy("victim", hardening.policy(FIRST).replace("health:", "#"))
    eventually(lambda: not hardening.running_workers(machine, "prober"), "its end")


def test_killed_prober_is_followed_by_another_one(shipped: Service) -> None:
    machine = shipped.machine
    backend = hardening.serve(machine, FIRST)
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.start()
    (unit,) = eventually(lambda: hardening.running_workers(machine, "prober"), "a prober")
    machine.run("systemctl", "kill", "--signal=SIGKILL", unit)
    eventually(lambda: hardening.running_workers(machine, "prober") not in ([], [unit]), "another prober")
    machine.run("systemctl", "stop", backend)
    eventually(lambda: hardening.states(shipped) == {FIRST: "dead"}, "what it tells")


def test_prober_that_does_not_start_kills_no_backend_and_is_told(shipped: Service) -> None:
    machine = shipped.machine
    hardening.drop_in(machine, PROBER, "ExecStart=", "ExecStart=/bin/false")
    shipped.policy("victim", hardening.policy(FIRST))  # nobody is there
    shipped.start()
    eventually(lambda: any("probes" in line for line in shipped.status()["waiting"]), "that nobody is probed")
    assert hardening.states(shipped) == {FIRST: "alive"}
    hardening.drop_in(machine, PROBER)
    eventually(lambda: hardening.states(shipped) == {FIRST: "dead"}, "probes again")
    eventually(lambda: not shipped.status()["waiting"], "that nothing is waited for")


def flow_of_a_dead_backend(service: Service) -> str:
    """What becomes of a flow in another network namespace when its backend is found dead: an errno, "" if it stays."""
    machine = service.machine
    backend = hardening.serve(machine, FIRST)
    service.policy("victim", hardening.policy(FIRST))
    service.start()
    eventually(lambda: hardening.states(service) == {FIRST: "alive"}, "the backend")
    hardening.hold(machine, FIRST)
    machine.run("systemctl", "stop", backend)
    told = eventually(lambda: service.own_journal("CGNETD_TYPE=backend-down"), "that it is dead")
    if "TCP" not in told[-1]["MESSAGE"]:
        return ""
    held = machine.path("/run/held.txt")
    return str(eventually(lambda: held.read_text(encoding="utf-8").strip(), "the end of the flow"))


def test_flows_of_a_dead_backend_are_closed_in_other_network_namespaces(shipped: Service) -> None:
    assert flow_of_a_dead_backend(shipped) == "ECONNABORTED"
    eventually(lambda: not hardening.running_workers(shipped.machine, "sockets"), "the end of the worker")


@pytest.mark.parametrize("capability", ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"])
def test_worker_for_sockets_needs_each_capability(shipped: Service, capability: str) -> None:
    hardening.drop_in(shipped.machine, SOCKETS, f"CapabilityBoundingSet=~{capability}")
    assert flow_of_a_dead_backend(shipped) == ""


def test_congestion_controls_are_asked_for_by_the_worker(shipped: Service) -> None:
    shipped.policy("victim", hardening.policy(FIRST, extra="tcp: {congestion: reno}"))
    shipped.start()
    assert shipped.status()["warnings"] == []
    shipped.policy("victim", hardening.policy(FIRST, extra="tcp: {congestion: nonesuch}"))
    shipped.machine.run("cgnetctl", "reload")
    (told,) = shipped.status()["warnings"]
    assert "this kernel has no congestion control nonesuch" in told["message"]


FROM_ELSEWHERE = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: victim}
spec:
  subject: {units: [victim.service]}
  egress: [{name: out, action: allow, to: [0.0.0.0/0], source: {address: 10.99.0.7}}]
"""


def test_addresses_of_the_host_are_followed(shipped: Service) -> None:
    machine = shipped.machine
    shipped.policy("victim", FROM_ELSEWHERE)
    shipped.start()
    assert shipped.status()["waiting"] == ["waiting for source address 10.99.0.7"]
    machine.run("ip", "address", "add", "10.99.0.7/32", "dev", "lo")
    try:
        eventually(lambda: not shipped.status()["waiting"], "the address")
    finally:
        machine.run("ip", "address", "delete", "10.99.0.7/32", "dev", "lo")
    eventually(lambda: shipped.status()["waiting"], "the lack of it")


def test_denial_tells_who_was_denied(shipped: Service) -> None:
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.start()
    shipped.dial("victim.service", SHUT)
    (told,) = eventually(lambda: shipped.own_journal("CGNETD_VERDICT=deny"), "the denial")
    assert (told["CGNETD_COMM"], told["CGNETD_UID"], told["CGNETD_UNIT"]) == ("python3", "0", "victim.service")
    assert told["OBJECT_SYSTEMD_UNIT"] == "victim.service"
    assert int(told["CGNETD_PID"]) > 1


def denials(service: Service) -> int:
    return sum(one["enforced"] for one in service.status()["counters"])


def test_removed_pin_directory_is_made_again_while_enforcement_goes_on(shipped: Service) -> None:
    machine = shipped.machine
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.start()
    machine.write("/run/many.py", MANY)
    program = ("python3", "/run/many.py", str(SHUT))
    machine.run("systemd-run", "--quiet", "--unit=victim.service", "-p", "StandardOutput=file:/run/many.txt", *program)
    eventually(lambda: denials(shipped) > 10, "denials")
    pid = shipped.status()["pid"]
    machine.run("rm", "-rf", PINS)
    eventually(lambda: hardening.restarted(shipped), "another start")
    machine.run("systemctl", "kill", "--signal=SIGTERM", "victim.service")
    made = eventually(lambda: machine.path("/run/many.txt").read_text(encoding="utf-8").split(), "the calls")
    assert made[1:] == ["EHOSTUNREACH"]
    assert (shipped.status()["generation"], denials(shipped)) == (1, int(made[0]))
    assert machine.path(f"{PINS}/links/connect4").exists()
    assert shipped.journal(f"MESSAGE_ID={PINS_LOST}", f"_PID={pid}")
    eventually(lambda: shipped.show("NFileDescriptorStore")["NFileDescriptorStore"] == "0", "an empty store")


MANY = """\
import errno, signal, socket, sys, time
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
count, found = 0, set()
while going:
    with socket.socket() as made:
        found.add(errno.errorcode.get(made.connect_ex(("127.0.0.1", int(sys.argv[1]))), "connected"))
    count += 1
    time.sleep(0.001)
print(count, *sorted(found))
"""


def test_pin_directory_that_another_one_took_the_place_of_is_used(shipped: Service) -> None:
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.start()
    shipped.machine.run("sh", "-c", f"rm -rf {PINS} && mkdir {PINS}")
    eventually(lambda: hardening.restarted(shipped), "another start")
    assert shipped.machine.path(f"{PINS}/links/connect4").exists()
    assert shipped.dial("victim.service", SHUT) == "EHOSTUNREACH"


def test_flush_and_reload_by_the_running_daemon(shipped: Service) -> None:
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.start()
    shipped.machine.run("cgnetctl", "flush")
    assert shipped.dial("victim.service", SHUT) == "ECONNREFUSED"
    assert list(shipped.machine.path(PINS).iterdir()) == []
    shipped.machine.run("cgnetctl", "reload")
    assert shipped.dial("victim.service", SHUT) == "EHOSTUNREACH"


def test_other_pin_directory_needs_to_be_named_in_the_unit(shipped: Service) -> None:
    other = "/sys/fs/bpf/elsewhere"
    shipped.policy("victim", hardening.policy(FIRST))
    shipped.settings(f"pin_dir: {other}\n")
    hardening.drop_in(shipped.machine, UNIT, "Restart=no")  # another start would forget how this one ended
    assert hardening.start_code(shipped) == "75"
    pid = shipped.show("ExecMainPID")["ExecMainPID"]
    eventually(
        lambda: [one for one in shipped.journal(f"_PID={pid}") if "ReadWritePaths=" in one["MESSAGE"]], "what to do"
    )
    hardening.drop_in(
        shipped.machine, UNIT, f"ExecStartPre=-+/usr/bin/mkdir -p -m 0700 {other}", f"ReadWritePaths=-{other}"
    )
    shipped.start()
    assert shipped.dial("victim.service", SHUT) == "EHOSTUNREACH"
    shipped.machine.run("cgnetctl", "flush")
    assert shipped.dial("victim.service", SHUT) == "ECONNREFUSED"
    shipped.machine.run("systemctl", "stop", UNIT)
    shipped.machine.run("cgnetctl", "flush")
    assert not shipped.machine.path(other).exists()


def test_daemon_does_not_start_without_the_administrators_capability(shipped: Service) -> None:
    shipped.policy("victim", hardening.policy(FIRST))
    hardening.drop_in(shipped.machine, UNIT, "CapabilityBoundingSet=~CAP_SYS_ADMIN", "Restart=no")
    assert hardening.start_code(shipped) == "4"


def test_devices_are_not_followed_without_the_networks_capability(shipped: Service) -> None:
    shipped.policy("victim", FROM_ELSEWHERE)
    hardening.drop_in(shipped.machine, UNIT, "CapabilityBoundingSet=~CAP_NET_ADMIN", "Restart=no")
    assert hardening.start_code(shipped) == "4"


SET = """apiVersion: cgnetd/v1
kind: AddressSet
metadata: {name: others}
spec: {files: [/run/sets/others.txt]}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: victim}
spec:
  subject: {units: [victim.service]}
  egress: [{name: open, action: allow, to: [set:others]}, {name: rest, action: deny, errno: EHOSTUNREACH}]
"""


def private_set(service: Service) -> None:
    """A set file that only another user may read."""
    service.machine.write("/run/sets/others.txt", "127.0.0.1\n", mode=0o600)
    service.machine.run("chown", "nobody", "/run/sets/others.txt")
    service.policy("victim", SET)


@pytest.mark.parametrize("without", ["", "CAP_DAC_READ_SEARCH"])
def test_set_file_of_another_user_is_read_by_a_capability(shipped: Service, without: str) -> None:
    private_set(shipped)
    if without:
        hardening.drop_in(shipped.machine, UNIT, f"CapabilityBoundingSet=~{without}")
    shipped.start()
    assert bool(shipped.status()["problems"]) == bool(without)


@pytest.mark.parametrize("without", ["", "CAP_LEASE"])
def test_set_file_that_another_user_writes_is_not_read_by_a_capability(shipped: Service, without: str) -> None:
    machine = shipped.machine
    private_set(shipped)
    if without:
        hardening.drop_in(machine, UNIT, f"CapabilityBoundingSet=~{without}")
    shipped.start()
    assert shipped.dial("victim.service", SHUT) == "ECONNREFUSED"
    machine.run("systemd-run", "--quiet", "--collect", "--unit=victim.service", "-p", "User=nobody", *WRITER)
    eventually(lambda: machine.path("/run/sets/others.txt").stat().st_size == 0, "a file that is half written")
    machine.try_run("cgnetctl", "reload")
    assert (shipped.status()["generation"] > 1) == bool(without)


WRITER = ("python3", "-c", "import time; made = open('/run/sets/others.txt', 'w'); time.sleep(600)")
