# SPDX-License-Identifier: Apache-2.0
"""Services with backends that come and go, callers in other network namespaces, and drop-ins for the units of cgnetd.

Must not know what a test expects.
"""

from __future__ import annotations

from beds.machine import Machine
from system.service import UNIT, Service, eventually

VIRTUAL, PORT = "192.0.2.20", 5432
FIRST, SECOND = "127.0.0.11:3333", "127.0.0.12:3333"
PROBER, SOCKETS = "cgnetd-prober@.service", "cgnetd-sockets@.service"
_DROP_INS = "/run/systemd/system"
_SERVER = """\
import socket, sys
address, port = sys.argv[1].split(":")
made = socket.create_server((address, int(port)))
kept = []
while True:
    one, _ = made.accept()
    one.sendall(sys.argv[1].encode() + b"\\n")
    kept.append(one)
"""
# In a network namespace of its own, with the backend in there too: holds a flow to the service until that ends.
_HOLDER = """\
import errno, socket, sys, threading
address, port = sys.argv[1].split(":")
made = socket.create_server((address, int(port)))
kept = []
def take():
    while True:
        kept.append(made.accept()[0])
threading.Thread(target=take, daemon=True).start()
flow = socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=60)
open("/run/holder/up", "w").close()
try:
    flow.recv(1)
    print("ended")
except OSError as error:
    print(errno.errorcode[error.errno] if error.errno else "kept")
"""
_CALLER = """\
import errno, socket, sys
with socket.socket() as made:
    made.settimeout(5)
    found = made.connect_ex((sys.argv[1], int(sys.argv[2])))
    print(errno.errorcode[found] if found else made.makefile().readline().strip())
"""
PROGRAMS = {"/run/server.py": _SERVER, "/run/holder.py": _HOLDER, "/run/caller.py": _CALLER}


def policy(*backends: str, extra: str = "") -> str:
    """victim.service reaches service db with these backends; `extra`: keys of spec."""
    listed = ", ".join("{{address: {}, port: {}}}".format(*backend.split(":")) for backend in backends)
    return f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: victim}}
spec:
  subject: {{units: [victim.service]}}
  {extra}
  egress: [{{name: db, action: redirect, to: ["service:db"]}}, {{name: rest, action: deny, errno: EHOSTUNREACH}}]
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec:
  addresses: [{VIRTUAL}]
  ports: [{{port: {PORT}}}]
  backends: [{listed}]
  health: {{interval: 200ms, timeout: 150ms, fall: 5}}
  onBackendDown: close
"""


def drop_in(machine: Machine, unit: str, *lines: str) -> None:
    """Lines for [Service] of a unit, in place of those of before; none: nothing but what it is shipped with."""
    path = f"{_DROP_INS}/{unit}.d/test.conf"
    if lines:
        machine.write(path, "\n".join(("[Service]", *lines)) + "\n")
    else:
        machine.run("rm", "-f", path)
    machine.run("systemctl", "daemon-reload")


def serve(machine: Machine, place: str) -> str:
    """A unit that answers at ADDRESS:PORT; its name."""
    name = f"backend-{place.replace(':', '-')}.service"
    machine.run("systemd-run", "--quiet", "--collect", f"--unit={name}", "python3", "/run/server.py", place)
    address, port = place.split(":")
    eventually(lambda: machine.try_run("python3", "/run/caller.py", address, port).stdout.strip() == place, name)
    return name


def call(machine: Machine) -> str:
    """What victim.service gets from the service: the backend that answers, or an errno by name."""
    words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--unit=victim.service")
    return machine.run(*words, "python3", "/run/caller.py", VIRTUAL, str(PORT)).strip()


def hold(machine: Machine, place: str) -> None:
    """victim.service, another user's, holds a flow to a backend in a network namespace of its own."""
    machine.run("rm", "-f", "/run/held.txt")
    settings = ("User=nobody", "PrivateNetwork=yes", "RuntimeDirectory=holder", "StandardOutput=file:/run/held.txt")
    options = [word for setting in settings for word in ("-p", setting)]
    command = ("python3", "/run/holder.py", place, VIRTUAL, str(PORT))
    machine.run("systemd-run", "--quiet", "--collect", "--unit=victim.service", *options, *command)
    eventually(machine.path("/run/holder/up").exists, "the flow that is held")


def states(service: Service) -> dict[str, str]:
    """Of the backends, as status tells: "alive" or "dead" by ADDRESS:PORT."""
    found = service.status()["services"]
    return {
        f"{backend['address']}:{backend['port']}": "alive" if backend["alive"] else "dead"
        for one in found
        for backend in one["backends"]
    }


def running_workers(machine: Machine, name: str) -> list[str]:
    """Units of a worker that run now."""
    words = ("systemctl", "list-units", "--plain", "--no-legend", "--state=running", f"cgnetd-{name}@*.service")
    return [line.split()[0] for line in machine.run(*words).splitlines()]


def restarted(service: Service) -> bool:
    """Whether the unit came up again after it ended by itself, and enforces."""
    shown = service.show("ActiveState", "NRestarts")
    return shown["ActiveState"] == "active" and shown["NRestarts"] != "0" and bool(service.status()["enforcing"])


def start_code(service: Service) -> str:
    """With which status the daemon ends when it is started; "" if it does not."""
    if service.machine.try_run("systemctl", "start", UNIT).returncode == 0:
        return ""
    return service.show("ExecMainStatus")["ExecMainStatus"]
