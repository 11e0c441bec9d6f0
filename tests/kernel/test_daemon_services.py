# SPDX-License-Identifier: Apache-2.0
"""The real daemon and services: choices follow who is alive, at once and over restarts; dead backends keep no flows."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.kernel.cgroup import CgroupRoot
from cgnetd.kernel.store import Store
from support.backend import Backend
from support.governed import Governed, eventually, governed
from support.held import held_flow
from support.sandbox import PrivateCgroup

VIRTUAL, PORT = "192.0.2.20", 5432
# Servers that stop refuse at once. The timeouts only have to be long: on a slow machine a living one may answer late.
POLICY = f"""\
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: app}}
spec:
  subject: {{cgroups: [/app]}}
  egress:
    - {{name: db, action: redirect, to: ["service:db"], log: true}}
---
apiVersion: cgnetd/v1
kind: Service
metadata: {{name: db}}
spec:
  addresses: [{VIRTUAL}]
  ports: [{{port: {PORT}}}, {{port: {PORT}, protocol: udp}}]
  backends: [BACKENDS]
  health: {{interval: 200ms, timeout: 190ms, fall: 4, rise: RISE}}
  onBackendDown: DOWN
"""

# Talks to the service by UDP from inside the cgroup, a line a question: "connected" and "unconnected" sockets.
_TALKER = """
import json, os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
place = (sys.argv[2], int(sys.argv[3]))
connected, loose = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
for made in (connected, loose):
    made.settimeout(20)
connected.connect(place)
for line in sys.stdin:
    try:
        if line.strip() == "connected":
            connected.send(b"?")
            answer = connected.recv(64).decode()
        else:
            loose.sendto(b"?", place)
            answer = loose.recv(64).decode()
    except OSError as error:
        answer = type(error).__name__ + ":" + str(error.errno)
    print(json.dumps(answer), flush=True)
"""

# Holds a TCP connection to the service, and tells its peer when asked.
_VIEWER = """
import socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
made = socket.create_connection((sys.argv[2], int(sys.argv[3])))
for _ in sys.stdin:
    print("%s %d" % made.getpeername(), flush=True)
"""


def policy(*backends: Backend, rise: int = 2, down: str = "keep") -> str:
    listed = ", ".join(f"{{address: 127.0.0.1, port: {backend.port}}}" for backend in backends)
    return POLICY.replace("BACKENDS", listed).replace("RISE", str(rise)).replace("DOWN", down)


@pytest.fixture
def one() -> Iterator[Backend]:
    with Backend("one") as made:
        yield made


@pytest.fixture
def two() -> Iterator[Backend]:
    with Backend("two") as made:
        yield made


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


class Talker:
    """A process in the cgroup with a connected and an unconnected UDP socket."""

    def __init__(self, cgroup: PrivateCgroup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TALKER, str(cgroup.path), VIRTUAL, str(PORT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, kind: str) -> str:
        """Who answered, or the error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(kind + "\n")
        self._process.stdin.flush()
        answer: str = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def talkers() -> Iterator[list[Talker]]:
    made: list[Talker] = []
    yield made
    for talker in made:
        talker.close()


def calls(app: Governed, count: int = 40) -> Counter[str]:
    """Who answers TCP connections to the virtual address from inside the cgroup, or the errno."""

    def call() -> Counter[str]:
        seen: Counter[str] = Counter()
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
                made.settimeout(30)
                number = made.connect_ex((VIRTUAL, PORT))
                seen[errno.errorcode[number] if number else made.recv(64).decode()] += 1
        return seen

    found: Counter[str] = app.app.call(call)
    return found


def backends(app: Governed) -> dict[int, dict[str, Any]]:
    """What status says of each, by port."""
    (service,) = app.daemon.ask("status")["services"]
    return {backend["port"]: backend for backend in service["backends"]}


def await_state(app: Governed, backend: Backend, *, alive: bool) -> None:
    eventually(lambda: backends(app)[backend.port]["alive"] is alive, f"{backend.name} {alive}")


def start(app: Governed, text: str, *extra: str) -> None:
    app.daemon.write_policy("app.yaml", text)
    app.start(*extra)


def test_calls_go_to_backends_alive_and_to_no_others(app: Governed, one: Backend, two: Backend) -> None:
    start(app, policy(one, two))
    assert set(calls(app)) == {"one", "two"}
    one.stop()
    down = app.await_record("backend-down")
    assert (down["service"], down["port"], down["error"]) == ("db", one.port, "Connection refused")
    assert calls(app) == {"two": 40}
    assert app.records("service-down") == []
    one.start()
    assert app.await_record("backend-up")["port"] == one.port
    assert set(calls(app)) == {"one", "two"}


def test_service_without_a_backend_alive_refuses_at_once_and_says_so(app: Governed, one: Backend, two: Backend) -> None:
    start(app, policy(one, two), "--set", "audit.window=100ms")
    one.stop()
    two.stop()
    told = app.await_record("service-down")
    assert (told["service"], told["errno"]) == ("db", "ECONNREFUSED")
    assert calls(app, 3) == {"ECONNREFUSED": 3}
    event = eventually(
        lambda: [event for event in app.records("flow") if event["verdict"] == "deny"], "the event of a denied call"
    )[0]
    assert (event["reason"], event["rule"]) == ("no backend of service db is alive", "db/service:db/tcp")
    explained = app.daemon.ask("explain", cgroup="/app", hook="connect", protocol="tcp", address=VIRTUAL, port=PORT)
    assert (explained["verdict"], explained["errno"]) == ("deny", "ECONNREFUSED")
    two.start()
    await_state(app, two, alive=True)
    assert calls(app, 3) == {"two": 3}


def test_redirect_is_told_with_where_the_call_went(app: Governed, one: Backend) -> None:
    start(app, policy(one))
    assert calls(app, 1) == {"one": 1}
    event = app.await_record("flow")
    assert (event["verdict"], event["remote_address"], event["remote_port"]) == ("redirect", VIRTUAL, PORT)
    assert (event["new_address"], event["new_port"]) == ("127.0.0.1", one.port)


def test_status_tells_states_and_shares(app: Governed, one: Backend, two: Backend) -> None:
    start(app, policy(one, two))
    assert {backend["share"] for backend in backends(app).values()} == {0.5}
    one.stop()
    await_state(app, one, alive=False)
    status = app.daemon.ask("status")
    (service,) = status["services"]
    assert (service["name"], service["alive"], status["views"]) == ("db", 1, True)
    found = backends(app)
    assert (found[one.port]["share"], found[two.port]["share"]) == (0.0, 1.0)
    assert (found[one.port]["error"], found[two.port]["error"]) == ("Connection refused", "")
    assert found[one.port]["since"] != ""


def test_dead_backend_stays_dead_over_a_restart_until_probes_say_otherwise(
    app: Governed, one: Backend, two: Backend
) -> None:
    start(app, policy(one, two, rise=100))
    one.stop()
    app.await_record("backend-down")
    app.daemon.kill()
    assert calls(app) == {"two": 40}
    one.start()
    app.start()
    assert backends(app)[one.port]["alive"] is False
    assert calls(app) == {"two": 40}
    app.daemon.write_policy("app.yaml", policy(one, two, rise=1))  # what is known stays known over a reload too
    app.daemon.ask("reload")
    await_state(app, one, alive=True)
    assert set(calls(app)) == {"one", "two"}


def test_reload_keeps_what_is_known_of_backends(app: Governed, one: Backend, two: Backend) -> None:
    start(app, policy(one, two, rise=100))
    one.stop()
    app.await_record("backend-down")
    one.start()
    more = policy(one, two, rise=100).replace("action: redirect,", "action: redirect, hooks: [connect, sendmsg],")
    more = more.replace("subject: {cgroups: [/app]}", "subject: {cgroups: [/app, /more]}")
    assert app.daemon.reload_after(lambda: app.daemon.write_policy("app.yaml", more))["changed"] is True
    assert calls(app) == {"two": 40}


def test_connected_udp_on_a_removed_backend_is_closed_and_unconnected_moves(
    app: Governed, one: Backend, two: Backend, talkers: list[Talker]
) -> None:
    start(app, policy(one))
    talkers += [Talker(app.app) for _ in range(2)]
    talker, other = talkers
    assert [talker.ask(kind) for kind in ("connected", "unconnected")] == ["one", "one"]
    assert other.ask("connected") == "one"
    app.daemon.write_policy("app.yaml", policy(two))
    app.daemon.ask("reload")
    told = app.await_record("flows-closed")
    assert (told["service"], told["port"], told["closed"]) == ("db", one.port, {"udp": 2})
    assert talker.ask("connected") == f"OSError:{errno.EDESTADDRREQ}"
    assert talker.ask("unconnected") == "two"


def test_connected_udp_on_a_dead_backend_is_closed(
    app: Governed, one: Backend, two: Backend, talkers: list[Talker]
) -> None:
    start(app, policy(one, two))
    talkers += [Talker(app.app) for _ in range(12)]
    asked = Counter(talker.ask("connected") for talker in talkers)
    assert set(asked) == {"one", "two"}
    one.stop()
    told = app.await_record("backend-down")
    assert told["closed"] == {"udp": asked["one"]}
    assert Counter(talker.ask("connected") for talker in talkers)["two"] == asked["two"]
    assert {talker.ask("unconnected") for talker in talkers} == {"two"}


@pytest.mark.parametrize(("down", "answer"), [("keep", "kept"), ("close", "ConnectionAbortedError")])
def test_tcp_flows_of_a_removed_backend_end_by_themselves_or_are_closed(
    app: Governed, one: Backend, two: Backend, down: str, answer: str
) -> None:
    start(app, policy(one, down=down))
    with held_flow(app.app, VIRTUAL, PORT) as fate:
        app.daemon.write_policy("app.yaml", policy(two, down=down))
        app.daemon.ask("reload")
        assert fate() == answer
    closed = [told["closed"] for told in app.records("flows-closed")]
    assert closed == ([] if answer == "kept" else [{"udp": 0, "tcp": 1}])


def test_peer_is_what_was_asked_for_over_reloads_and_restarts(app: Governed, one: Backend, two: Backend) -> None:
    start(app, policy(one))
    argv = [sys.executable, "-c", _VIEWER, str(app.app.path), VIRTUAL, str(PORT)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as viewer:

        def peer() -> str:
            assert viewer.stdin is not None
            assert viewer.stdout is not None
            viewer.stdin.write("?\n")
            viewer.stdin.flush()
            return viewer.stdout.readline().strip()

        seen = [peer()]
        app.daemon.write_policy("app.yaml", policy(two))
        app.daemon.ask("reload")
        seen.append(peer())
        plain = policy(two).split("---\n")[0].replace('action: redirect, to: ["service:db"]', "action: allow")
        app.daemon.write_policy("app.yaml", plain)  # nothing rewrites any more, but the socket still holds its view
        app.daemon.ask("reload")
        app.daemon.ask("status")
        seen.append(peer())
        app.daemon.stop()
        app.start()
        seen.append(peer())
        viewer.communicate(timeout=60)
    assert seen == [f"{VIRTUAL} {PORT}"] * 4


def test_live_cells_that_somebody_edits_are_put_right_and_told(app: Governed, one: Backend, two: Backend) -> None:
    start(app, policy(one, two), "--set", "limits.reconcile_interval=100ms")
    with (
        CgroupRoot(app.tree.path) as root,
        Store.open(app.pin_dir, root, create=False) as store,
        store.live(store.control().active) as table,
    ):
        right = table.cells()
        with app.daemon.paused():  # all of them are found together
            for cell in range(200):
                table.set(cell, 0)
        told = app.await_record("drift-repaired")
        assert table.cells() == right
        assert told["repaired"] == [f"set 200 live cells of slot {store.control().active}"]
    assert set(calls(app)) == {"one", "two"}


def store_slot(app: Governed) -> int:
    with CgroupRoot(app.tree.path) as root, Store.open(app.pin_dir, root, create=False) as store:
        return store.control().active


def test_missing_live_table_is_written_again(app: Governed, one: Backend) -> None:
    start(app, policy(one), "--set", "limits.reconcile_interval=100ms")
    path = app.pin_dir / "slots" / str(store_slot(app)) / "live"
    path.unlink()
    app.await_record("drift-repaired")
    eventually(lambda: app.daemon.ask("status")["generation"] == 2, "another generation")
    assert calls(app, 3) == {"one": 3}


def test_services_share_probes_and_idle_ones_are_not_probed(app: Governed, one: Backend) -> None:
    second = POLICY.split("---\n")[1].replace("name: db", "name: web").replace(VIRTUAL, "192.0.2.21")
    text = policy(one) + "---\n" + second.replace("BACKENDS", f"{{address: 127.0.0.1, port: {one.port}}}")
    start(app, text.replace("RISE", "2").replace("DOWN", "keep"))
    one.stop()
    eventually(lambda: len(app.records("backend-down")) == 2, "both services")
    eventually(lambda: len(app.records("service-down")) == 2, "that both are down")
    assert {told["service"] for told in app.records("service-down")} == {"db", "web"}


def test_diff_tells_what_a_reload_would_change(app: Governed, one: Backend, two: Backend, tmp_path: Path) -> None:
    start(app, policy(one))
    assert calls(app, 4) == {"one": 4}
    same = app.daemon.ask("diff")
    assert same["problems"] == []
    assert not any(items for kind in ("rules", "policies", "services") for items in same[kind].values())
    assert same["verdicts"] == {"checked": 4, "unjudged": 0, "changed": []}
    other = tmp_path / "other"
    other.mkdir()
    denied = policy(one, two).replace("egress:\n", "egress:\n    - {name: none, action: deny, to: [192.0.2.0/24]}\n")
    (other / "app.yaml").write_text(denied)
    found = app.daemon.ask("diff", policy_dirs=[str(other)])
    assert [rule["rule"] for rule in found["rules"]["added"]] == ["none"]
    assert found["services"]["changed"][0]["backends"]["added"] == [f"127.0.0.1:{two.port}"]
    (changed,) = found["verdicts"]["changed"]
    assert (changed["from"], changed["to"], changed["calls"], changed["rule"]) == ("redirect", "deny", 4, "none")
    assert changed["from_place"] == f"127.0.0.1:{one.port}"
    assert app.daemon.ask("status")["generation"] == 1


def test_diff_of_files_with_errors_tells_them_and_nothing_else(app: Governed, one: Backend) -> None:
    start(app, policy(one), "--set", "limits.reconcile_interval=1h")
    app.daemon.write_policy("bad.yaml", "kind: [\n")
    found = app.daemon.ask("diff")
    assert [Path(problem["file"]).name for problem in found["problems"]] == ["bad.yaml"]
    assert "rules" not in found
