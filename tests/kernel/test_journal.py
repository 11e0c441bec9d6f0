# SPDX-License-Identifier: Apache-2.0
"""The real daemon and a real journald: what journalctl shows of denies, of policies and of the daemon itself."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cgnetd.cli import client
from cgnetd.cli.problems import DaemonError
from cgnetd.service.events import Kind
from support import journald
from support.governed import Governed, connect, eventually, governed
from support.journald import Journald
from support.sandbox import PrivateCgroup

SHUT = 2222
MANY = 1500
DENIALS = f"MESSAGE_ID={Kind.DENY.message_id}"
LONGEST_S = 180
UNIT = "web.service"
POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: web}
spec:
  subject: {units: [web.service]}
  egress: [{name: rest, action: deny, errno: ECONNREFUSED}]
"""


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A daemon that waits for journald would hold the test for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the daemon does not answer")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def journal(tmp_path: Path, bpffs: Path) -> Iterator[Journald]:
    if not journald.PROGRAM.exists():
        pytest.skip(f"no {journald.PROGRAM}; install it: apt-get install systemd")
    with Journald(tmp_path / "run", kept=[bpffs]) as found:
        found.start()
        yield found


@pytest.fixture
def app(
    tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path, journal: Journald
) -> Iterator[Governed]:
    """Running, and writing to the journal."""
    directory = tmp_path / "daemon"
    directory.mkdir()
    with governed(directory, private_cgroup, pin_dir, objects) as found:
        found.daemon.write_policy("app.yaml", POLICY)
        with journal.namespace():
            found.start("--audit", "journal", "--set", "audit.window=100ms")
        yield found


@pytest.fixture
def web(app: Governed) -> PrivateCgroup:
    return app.tree.child(f"system.slice/{UNIT}")


def awaited(journal: Journald, kind: Kind, *words: str) -> dict[str, Any]:
    """The only entry of a kind."""
    (entry,) = eventually(lambda: journal.entries(f"MESSAGE_ID={kind.message_id}", *words), kind.label)
    return dict(entry)


def connect_as(cgroup: PrivateCgroup, comm: str) -> tuple[int, int]:
    """Connect from a process of this name: its pid and the errno it got."""

    def call() -> tuple[int, int]:
        Path("/proc/self/comm").write_text(comm)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            return os.getpid(), made.connect_ex(("127.0.0.1", SHUT))

    pid, number = cgroup.call(call)
    return pid, number


def connect_to_many() -> None:
    """More events than the socket of a journald that does not read can hold (net.unix.max_dgram_qlen)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        for port in range(1, MANY + 1):
            assert made.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def recent_calls(app: Governed) -> int:
    """Calls that the daemon has told of."""
    return sum(
        event["count"] for event in client.follow(str(app.daemon.control_path), "events", {}) if event["type"] == "flow"
    )


def dropped_of(app: Governed) -> int:
    return int(app.daemon.ask("status")["stats"]["sink_dropped"])


def test_deny_is_an_entry_with_every_field(journal: Journald, app: Governed, web: PrivateCgroup) -> None:
    pid, got = connect_as(web, "browser")
    assert got == errno.ECONNREFUSED
    entry = awaited(journal, Kind.DENY)
    place = str(app.daemon.policy_dir / "app.yaml")
    wanted = f"denied {UNIT} connect udp 127.0.0.1:{SHUT} (ECONNREFUSED) by policy web rule rest ({place}:6)"
    assert entry["MESSAGE"] == wanted
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["_PID"]) == ("5", "cgnetd", str(app.daemon.pid))
    assert (entry["OBJECT_PID"], entry["OBJECT_SYSTEMD_UNIT"]) == (str(pid), UNIT)
    fields = {name.removeprefix("CGNETD_"): entry[name] for name in entry if name.startswith("CGNETD_")}
    for name in ("TIME", "FIRST_SEEN", "LAST_SEEN", "LOCAL_ADDRESS", "LOCAL_PORT"):
        fields.pop(name, None)
    assert fields == {
        "TYPE": "flow",
        **{"VERDICT": "deny", "SHADOW_VERDICT": "deny", "HOOK": "connect", "PROTOCOL": "udp", "FAMILY": "4"},
        **{"REMOTE_ADDRESS": "127.0.0.1", "REMOTE_PORT": str(SHUT), "ERRNO": "ECONNREFUSED"},
        **{"POLICY": "web", "RULE": "rest", "FILE": place, "LINE": "6"},
        **{"SHADOW_POLICY": "web", "SHADOW_RULE": "rest", "SHADOW_FILE": place, "SHADOW_LINE": "6"},
        **{"GENERATION": "1", "CGROUP_ID": str(web.id), "CGROUP": f"/system.slice/{UNIT}", "UNIT": UNIT},
        **{"DECIDED_BY": "task", "PID": str(pid), "COMM": "browser", "UID": "0", "COUNT": "1", "COLLECTED": "false"},
        "EXPLAIN": f"cgnetctl explain /system.slice/{UNIT} connect udp 127.0.0.1:{SHUT}",
    }


def test_deny_is_shown_among_the_messages_of_its_unit(journal: Journald, web: PrivateCgroup) -> None:
    connect(web, SHUT)
    entry = awaited(journal, Kind.DENY)
    assert [shown["__CURSOR"] for shown in journal.entries("--unit", UNIT)] == [entry["__CURSOR"]]
    assert journal.entries("--unit", "other.service") == []


def test_value_with_a_line_break_is_kept_whole(journal: Journald, web: PrivateCgroup) -> None:
    connect_as(web, "a\nPRIORITY=0")
    entry = awaited(journal, Kind.DENY)
    assert (entry["CGNETD_COMM"], entry["PRIORITY"]) == ("a\nPRIORITY=0", "5")


def test_loaded_and_rejected_sets_are_entries(journal: Journald, app: Governed) -> None:
    loaded = awaited(journal, Kind.POLICY_LOADED)
    assert (loaded["PRIORITY"], loaded["CGNETD_TYPE"], loaded["CGNETD_GENERATION"]) == ("6", "policy-loaded", "1")
    app.daemon.write_policy("bad.yaml", "kind: Polcy\n")
    with pytest.raises(DaemonError):
        app.daemon.ask("reload")
    rejected = awaited(journal, Kind.POLICY_REJECTED)
    assert (rejected["PRIORITY"], rejected["CGNETD_TYPE"]) == ("3", "policy-rejected")
    (problem,) = json.loads(rejected["CGNETD_PROBLEMS"])
    assert (problem["file"], problem["line"]) == (str(app.daemon.policy_dir / "bad.yaml"), 1)
    assert "OBJECT_PID" not in rejected


def test_restarted_journald_gets_what_happened_meanwhile(journal: Journald, app: Governed, web: PrivateCgroup) -> None:
    journal.kill()
    connect(web, SHUT)
    eventually(lambda: recent_calls(app) == 1, "an event")
    journal.start()
    connect(web, SHUT + 1)
    eventually(lambda: len(journal.entries(DENIALS)) == 2, "both")
    assert [entry["CGNETD_REMOTE_PORT"] for entry in journal.entries(DENIALS)] == [str(SHUT), str(SHUT + 1)]
    assert dropped_of(app) == 0


def test_journald_that_hangs_does_not_hold_the_daemon(journal: Journald, app: Governed, web: PrivateCgroup) -> None:
    os.kill(journal.pid, signal.SIGSTOP)
    web.call(connect_to_many)
    eventually(lambda: recent_calls(app) == MANY, "every call in an event")
    os.kill(journal.pid, signal.SIGCONT)
    eventually(lambda: sum(int(one["CGNETD_COUNT"]) for one in journal.entries(DENIALS)) == MANY, "the rest")
    assert len(journal.entries(DENIALS)) < MANY / 10
    assert dropped_of(app) == 0
