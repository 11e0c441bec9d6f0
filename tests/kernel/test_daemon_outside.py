# SPDX-License-Identifier: Apache-2.0
"""The real daemon and the world around it: service manager, control socket, streams, single runs, bad surroundings."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cgnetd.cli import client
from cgnetd.errors import CgnetdError
from support.governed import OPEN, SHUT, Governed, connect, eventually, governed, policy
from support.sandbox import PrivateCgroup

DENIED = errno.EHOSTUNREACH
_PR_CAPBSET_DROP = 24
MAIN = "import sys; from cgnetd.cli.daemon import main; sys.exit(main())"


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


@pytest.fixture
def words(app: Governed, tmp_path: Path) -> list[str]:
    """A command line of its own socket, for runs beside the fixture's daemon."""
    found = ["--policy-dir", str(app.daemon.policy_dir), "--pin-dir", str(app.pin_dir), "--audit", "stdout"]
    return [*found, "--cgroup-root", str(app.tree.path), "--control-socket", str(tmp_path / "own.sock")]


def run(words: list[str], objects: Path, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", MAIN, *words]
    environment = {**os.environ, "CGNETD_OBJECT_DIR": str(objects)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment, **options)  # type: ignore[call-overload, no-any-return]


def drop_capabilities() -> None:
    """What is executed next has none, whoever runs it."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def heard(notified: socket.socket, word: str) -> str:
    """The next notification that holds a word."""
    while True:
        text = notified.recv(4096).decode()
        if word in text:
            return text


def test_service_manager_is_told_of_every_phase(words: list[str], app: Governed, objects: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "own-notify.sock")
    environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000", "CGNETD_OBJECT_DIR": str(objects)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(60)
        notified.bind(path)
        argv = [sys.executable, "-c", MAIN, *words]
        with subprocess.Popen(argv, env=os.environ | environment, stdout=subprocess.DEVNULL) as daemon:
            assert "STATUS=enforcing generation 1, 1 policy" in heard(notified, "READY=1")
            for _ in range(3):
                heard(notified, "WATCHDOG=1")
            daemon.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in heard(notified, "RELOADING=1")
            heard(notified, "READY=1")
            (app.daemon.policy_dir / "app.yaml").unlink()
            assert "not enforcing: there are no policies" in heard(notified, "STATUS=")
            daemon.send_signal(signal.SIGTERM)
            heard(notified, "STOPPING=1")
            assert daemon.wait(60) == 0


def test_events_can_be_followed(app: Governed) -> None:
    app.start()
    connect(app.app, SHUT)
    app.await_record("flow")
    recent = list(client.follow(str(app.daemon.control_path), "events", {"follow": False}))
    assert [event["type"] for event in recent] == ["policy-loaded", "started", "flow"]
    events = client.follow(str(app.daemon.control_path), "events", {"follow": True, "count": 1})
    assert next(iter(events))["rule"] == "rest"
    timer = threading.Timer(0.3, lambda: connect(app.app, SHUT + 1))
    timer.start()
    assert next(iter(events))["remote_port"] == SHUT + 1
    timer.join()


@pytest.mark.parametrize(
    ("verb", "args", "expected"),
    [
        ("conquer", {}, "no such verb, accepted are status, reload"),
        ("explain", {}, "accepted is either cgroup"),
        ("explain", {"cgroup": "/app", "hook": "accept"}, "hook 'accept' is none of connect, sendmsg"),
        ("explain", {"cgroup": "/app", "hook": "connect", "protocol": "x"}, "protocol 'x' is none of tcp"),
        ("explain", {"cgroup": "/app", "hook": "connect", "protocol": "tcp", "address": "h"}, "'h' is no address"),
        (
            "explain",
            {"cgroup": "/app", "hook": "connect", "protocol": "tcp", "address": "::1", "port": 70000},
            "port 70000 is not a number from 0 to 65535",
        ),
        ("explain", {"pid": 4194305}, "process 4194305 is gone"),
        ("explain", {"pid": True}, "accepted is either cgroup, a path"),
        ("explain", {"cgroup": "/\ud800"}, "accepted is either cgroup, a path"),
        ("events", {"count": -1}, "count -1 is not a number"),
        ("events", {"follow": "yes"}, "follow 'yes' is neither true nor false"),
    ],
)
def test_request_that_makes_no_sense_is_told_why(
    app: Governed, verb: str, args: dict[str, object], expected: str
) -> None:
    app.start()
    with pytest.raises(CgnetdError, match=expected) as caught:
        app.daemon.ask(verb, **args)
    assert caught.value.exit_code == 2
    assert app.daemon.ask("version")["pid"] == app.daemon.pid


def test_explain_agrees_with_the_kernel(app: Governed) -> None:
    app.start()
    for cgroup, port in (("/app", OPEN), ("/app", SHUT), ("/late/soon/below", SHUT), ("/other", SHUT), ("/", SHUT)):
        asked = {"hook": "connect", "protocol": "udp", "address": "127.0.0.1", "port": port}
        explained = app.daemon.ask("explain", cgroup=cgroup, **asked)
        got = connect(app.tree if cgroup == "/" else app.tree.child(cgroup.strip("/")), port)
        assert explained["errno"] == (errno.errorcode[got] if got else "")
        assert explained["verdict"] == ("deny" if got else "allow")
    inside = app.app.popen(["sleep", "60"])
    eventually(lambda: "app" in Path(f"/proc/{inside.pid}/cgroup").read_text(), "the process in its cgroup")
    explained = app.daemon.ask("explain", pid=inside.pid, **asked)
    assert (explained["cgroup"], explained["steps"][0]["outcome"]) == ("/app", "rule rest: deny")
    inside.kill()
    inside.wait()


def test_once_makes_one_pass_and_leaves_it_in_force(words: list[str], app: Governed, objects: Path) -> None:
    done = run([*words, "--once"], objects)
    assert (done.returncode, json.loads(done.stdout)["type"]) == (0, "policy-loaded")
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
    app.daemon.write_policy("bad.yaml", "kind: [\n")
    refused = run([*words, "--once"], objects)
    assert refused.returncode == 78
    assert f"{app.daemon.policy_dir}/bad.yaml:2:1: " in refused.stderr
    assert connect(app.app, SHUT) == DENIED


def test_dry_run_tells_the_steps_and_changes_nothing(words: list[str], app: Governed, objects: Path) -> None:
    told = run([*words, "--dry-run"], objects)
    assert told.returncode == 0
    assert "put slot 1 in force" in told.stdout
    assert not app.pin_dir.exists()
    app.start()
    assert "nothing to do: it is in force" in run([*words, "--dry-run"], objects).stdout
    other = app.daemon.policy_dir.parent / "other"
    other.mkdir()
    (other / "app.yaml").write_text(policy(allowed=SHUT))
    told = run([*words[2:], "--dry-run", "--policy-dir", str(other)], objects)
    assert "put slot 0 in force" in told.stdout
    assert connect(app.app, SHUT) == DENIED


def test_closed_stdout_does_not_end_the_daemon(words: list[str], app: Governed, objects: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", MAIN, *words]
    environment = os.environ | {"CGNETD_OBJECT_DIR": str(objects)}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=environment, stdout=pipe, stderr=subprocess.DEVNULL) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        daemon.stdout.close()
        socket_path = str(tmp_path / "own.sock")

        def dropped() -> int:
            with suppress(CgnetdError):  # it is not there yet, or nobody listens yet
                return int(client.call(socket_path, "status")["stats"]["sink_dropped"])
            return 0

        connect(app.app, SHUT)
        eventually(dropped, "a dropped event")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--pin-dir", "/tmp/pins", "is not on a bpffs; choose one below"),
        ("--cgroup-root", "/tmp", "not a directory of a cgroup2 file system"),
        ("--cgroup-root", "/nonexistent", "No such file or directory"),
        ("--control-socket", "/proc/x/s", "make control socket /proc/x/s"),
    ],
)
def test_bad_surroundings_are_one_clear_error(
    words: list[str], objects: Path, option: str, value: str, expected: str
) -> None:
    refused = run([*words, option, value], objects)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert expected in line


def test_start_that_fails_leaves_no_pins(words: list[str], app: Governed, objects: Path, tmp_path: Path) -> None:
    broken = tmp_path / "objects"
    broken.mkdir()
    refused = run(words, broken)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is missing; build it" in refused.stderr
    assert not app.pin_dir.exists()
    assert run([*words, "--once"], objects).returncode == 0
    refused = run(words, broken)
    assert refused.returncode == 1
    assert connect(app.app, SHUT) == DENIED


def test_pins_of_another_abi_are_left_as_they_are(words: list[str], app: Governed, objects: Path) -> None:
    from cgnetd.kernel import layout
    from cgnetd.kernel.maps import Capacity, create, specs

    app.pin_dir.mkdir()
    meta = next(spec for spec in specs(Capacity()) if spec.pin == "meta")
    with create(meta) as made:
        made.update(bytes(4), layout.META.pack(layout.MAGIC, 999, 1, b"9.9"))
        made.pin(app.pin_dir / "meta")
    refused = run(words, objects)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert "ABI version 999 (cgnetd 9.9)" in line
    assert [path.name for path in app.pin_dir.iterdir()] == ["meta"]


def test_missing_privilege_is_told(words: list[str], objects: Path) -> None:
    refused = run([*words, "--once"], objects, preexec_fn=drop_capabilities)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert len(refused.stderr.splitlines()) == 1


def test_bad_settings_exit_78_and_leave_what_is_in_force(words: list[str], app: Governed, objects: Path) -> None:
    app.start()
    app.daemon.stop()
    refused = run([*words, "--set", "audit.windw=3s"], objects)
    assert refused.returncode == 78
    assert "audit.windw: unknown key" in refused.stderr
    assert connect(app.app, SHUT) == DENIED
