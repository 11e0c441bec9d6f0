# SPDX-License-Identifier: Apache-2.0
"""Events as sentences, JSON and journal entries, and the sinks that take them."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shlex
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cgnetd.cli.endpoint import parse_flow
from cgnetd.service.events import FlowEvent, Kind, Message, Record, RuleName
from cgnetd.service.journal import JournalSink, encode, fields_of
from cgnetd.service.sinks import EventLog, JsonSink
from cgnetd.service.units import Units, units_of

REST = RuleName("web", "rest", "/etc/cgnetd/policy.d/web.yaml", 12)
EVENT = FlowEvent(
    time_ns=1_700_000_000_123_456_789,
    denied=True,
    shadow_denied=True,
    hook="connect",
    protocol="tcp",
    family=4,
    local_address="0.0.0.0",
    local_port=0,
    remote_address="10.0.0.1",
    remote_port=443,
    errno="EPERM",
    rule=REST,
    shadow_rule=REST,
    generation=7,
    cgroup_id=4711,
    cgroup="/system.slice/nginx.service",
    unit="nginx.service",
    user_unit="",
    decided_by="task",
    pid=42,
    comm="nginx",
    uid=33,
    count=3,
    first_ns=1_700_000_000_000_000_000,
    last_ns=1_700_000_000_123_456_789,
)
REDIRECTED = dataclasses.replace(
    EVENT,
    denied=False,
    shadow_denied=False,
    errno="",
    redirected=True,
    shadow_redirected=True,
    new_address="127.0.0.1",
    new_port=8080,
)
MESSAGE = Message(Kind.POLICY_LOADED, 1_700_000_000_000_000_000, "generation 7 is in force", {"generation": 7})


class Recorder:
    """A sink that keeps what it is given."""

    dropped = 0
    kept = 0
    behind = False

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, records: Sequence[Record]) -> None:
        self.records.extend(records)

    def flush(self) -> None:
        self.records.append(MESSAGE)

    def close(self) -> None:
        self.records.clear()


def test_sentence_says_who_what_why_and_how_often() -> None:
    assert EVENT.sentence() == (
        "denied nginx.service connect tcp 10.0.0.1:443 (EPERM) by policy web rule rest "
        "(/etc/cgnetd/policy.d/web.yaml:12), 3 times"
    )


def test_sentence_of_a_shadow_denial_names_the_shadow_rule() -> None:
    event = dataclasses.replace(EVENT, denied=False, errno="", rule=RuleName("", "default_action", "", 0), count=1)
    assert event.kind is Kind.SHADOW_DENY
    assert event.sentence().startswith("would deny nginx.service connect tcp 10.0.0.1:443 by policy web rule rest")


def test_sentence_of_a_bind_shows_the_wanted_address() -> None:
    event = dataclasses.replace(EVENT, hook="bind", remote_address="", local_address="::1", local_port=80, family=6)
    assert "bind tcp [::1]:80 (EPERM)" in event.sentence()


def test_sentence_of_a_redirect_says_from_where_to_where() -> None:
    event = dataclasses.replace(REDIRECTED, count=1)
    assert event.kind is Kind.REDIRECT
    assert event.sentence() == (
        "redirected nginx.service connect tcp 10.0.0.1:443 to 127.0.0.1:8080 by policy web rule rest "
        "(/etc/cgnetd/policy.d/web.yaml:12)"
    )
    bind = dataclasses.replace(
        event, hook="bind", remote_address="", local_address="::", local_port=80, new_address="::1"
    )
    assert bind.sentence().startswith("rewrote nginx.service bind tcp [::]:80 to [::1]:8080 by ")
    unix = dataclasses.replace(bind, hook="connect", protocol="unix", local_address="", name="/run/a", new_address="")
    named = dataclasses.replace(unix, new_name="@b")
    assert named.sentence().startswith("redirected nginx.service connect unix /run/a to @b by ")


def test_sentence_of_a_shadow_redirect_names_the_shadow_rule() -> None:
    allowed = RuleName("", "default_action", "", 0)
    event = dataclasses.replace(
        EVENT, denied=False, shadow_denied=False, shadow_redirected=True, errno="", rule=allowed
    )
    assert event.kind is Kind.SHADOW_REDIRECT
    assert event.sentence().startswith("would redirect nginx.service connect tcp 10.0.0.1:443 by policy web rule rest")
    assert (event.to_json()["verdict"], event.to_json()["shadow_verdict"]) == ("allow", "redirect")


def test_denied_before_anything_else_is_the_kind() -> None:
    denied = dataclasses.replace(REDIRECTED, denied=True)
    assert denied.kind is Kind.DENY
    assert dataclasses.replace(denied, rule=RuleName("", "unlabelled", "", 0)).kind is Kind.DENY_BUILTIN
    assert dataclasses.replace(denied, reason="the device does not exist").kind is Kind.DENY_UNMET
    assert dataclasses.replace(REDIRECTED, shadow_denied=True).kind is Kind.SHADOW_DENY
    assert dataclasses.replace(REDIRECTED, redirected=False, shadow_redirected=False).kind is Kind.ALLOW


def test_sentence_says_why_a_call_was_denied_after_the_rules() -> None:
    event = dataclasses.replace(EVENT, errno="ECONNREFUSED", reason="no backend of service db is alive", count=1)
    assert event.sentence().endswith("web.yaml:12), no backend of service db is alive")
    assert event.to_json()["reason"] == "no backend of service db is alive"


def test_journal_entry_of_a_redirect_tells_where_it_went() -> None:
    fields = fields_of(REDIRECTED)
    assert (fields["CGNETD_VERDICT"], fields["CGNETD_NEW_ADDRESS"], fields["CGNETD_NEW_PORT"]) == (
        "redirect",
        "127.0.0.1",
        "8080",
    )
    assert fields["PRIORITY"] == "6"
    assert not {"CGNETD_REASON", "CGNETD_NAME", "CGNETD_NEW_NAME", "CGNETD_SOCKET_TYPE"} & fields.keys()


def test_json_holds_every_field_of_the_record() -> None:
    data = json.loads(json.dumps(EVENT.to_json()))
    assert data["type"] == "flow"
    assert data["time"] == "2023-11-14T22:13:20.123456Z"
    assert (data["verdict"], data["shadow_verdict"]) == ("deny", "deny")
    assert (data["policy"], data["rule"], data["file"], data["line"]) == ("web", "rest", REST.file, 12)
    wanted = {"hook", "protocol", "family", "local_address", "local_port", "remote_address", "remote_port", "errno"}
    wanted |= {"generation", "cgroup_id", "cgroup", "unit", "user_unit", "pid", "comm", "uid", "count", "first_seen"}
    assert (
        wanted | {"last_seen", "shadow_policy", "shadow_rule", "decided_by", "collected", "new_address"} <= data.keys()
    )
    assert MESSAGE.to_json() == {
        "type": "policy-loaded",
        "time": "2023-11-14T22:13:20.000000Z",
        "message": "generation 7 is in force",
        "generation": 7,
    }


def test_message_ids_are_distinct_and_well_formed() -> None:
    ids = {kind.message_id for kind in Kind}
    assert len(ids) == len(Kind)
    assert all(len(bytes.fromhex(text)) == 16 for text in ids)


def test_journal_entry_is_filed_under_the_unit_and_the_process() -> None:
    fields = fields_of(EVENT)
    assert fields["MESSAGE"] == EVENT.sentence()
    assert fields["MESSAGE_ID"] == Kind.DENY.message_id
    assert fields["PRIORITY"] == "5"
    assert fields["SYSLOG_IDENTIFIER"] == "cgnetd"
    assert (fields["OBJECT_PID"], fields["OBJECT_SYSTEMD_UNIT"]) == ("42", "nginx.service")
    assert "OBJECT_SYSTEMD_USER_UNIT" not in fields
    assert (fields["CGNETD_POLICY"], fields["CGNETD_REMOTE_PORT"]) == ("web", "443")
    assert "OBJECT_PID" not in fields_of(EVENT, pids=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "connect tcp 10.0.0.1:443"),
        ({"family": 6, "remote_address": "2001:db8::1"}, "connect tcp '[2001:db8::1]:443'"),
        ({"hook": "bind", "remote_address": "", "local_address": "::", "local_port": 80}, "bind tcp '[::]:80'"),
        ({"protocol": "unix", "remote_address": "", "name": "/run/a b"}, "connect unix '/run/a b'"),
        ({"protocol": "unix", "remote_address": "", "name": "\\x01"}, "connect unix NAME"),
        ({"hook": "create", "remote_address": "", "family": 6, "socket_type": "dgram"}, "create inet6/dgram"),
        ({"hook": "create", "remote_address": "", "socket_type": "seqpacket"}, "create inet/other"),
        ({"hook": "socket", "remote_address": "", "protocol": "sctp"}, "socket sctp"),
        ({"hook": "socket", "remote_address": "", "protocol": "l2tp"}, "socket raw"),
        ({"collected": True, "remote_address": ""}, "connect tcp ADDRESS:PORT"),
    ],
)
def test_journal_entry_has_the_command_that_explains_it(changes: dict[str, Any], words: str) -> None:
    command = fields_of(dataclasses.replace(EVENT, **changes))["CGNETD_EXPLAIN"]
    assert command == f"cgnetctl explain /system.slice/nginx.service {words}"
    given = shlex.split(command)[3:]
    if not {"NAME", "ADDRESS:PORT"} & {*given}:
        assert parse_flow(*given, *([None] if len(given) == 2 else [])).hook.value == given[0]


def test_journal_field_with_a_newline_is_length_prefixed() -> None:
    assert encode({"A": "x", "B": "1\n2=3"}) == b"A=x\nB\n" + struct.pack("<Q", 5) + b"1\n2=3\n"


def test_journal_sink_sends_one_datagram_a_record_and_keeps_what_is_not_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    sink = JournalSink(path)
    sink.write([EVENT])
    assert (sink.kept, sink.dropped) == (1, 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.settimeout(60)
        journal.bind(path)
        sink.write([MESSAGE])
        assert b"MESSAGE=denied nginx.service" in journal.recv(65536)
        assert b"CGNETD_GENERATION=7\n" in journal.recv(65536)
        assert sink.kept == 0
    sink.write([MESSAGE])
    assert (sink.kept, sink.dropped) == (1, 0)
    sink.close()


def test_journal_sink_keeps_so_many_then_counts_and_sends_them_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    sink = JournalSink(path)
    records = [dataclasses.replace(EVENT, count=number) for number in range(1, 4101)]
    sink.write(records[:1001])
    assert sink.behind
    sink.write(records[1001:])
    assert (sink.kept, sink.dropped) == (4000, 100)
    found: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.setblocking(False)
        while sink.kept:
            sink.flush()
            while len(found) + sink.kept < 4000:
                found.append(journal.recv(65536))
    assert [int(one.partition(b"CGNETD_COUNT=")[2].partition(b"\n")[0]) for one in found] == list(range(1, 4001))
    assert not sink.behind
    sink.close()


def test_journal_entry_too_large_for_a_datagram_goes_as_a_sealed_file(tmp_path: Path) -> None:
    problems = ["x" * 1000] * 20_000
    record = Message(Kind.POLICY_REJECTED, 1, "rejected", {"problems": problems})
    sink = JournalSink(str(tmp_path / "journal"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        sink.write([record])
        data, (fd,), _, _ = socket.recv_fds(journal, 65536, 1)
    assert (data, sink.dropped) == (b"", 0)
    with os.fdopen(fd, "rb") as file:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        file.seek(0)
        assert file.read() == encode(fields_of(record))
    sink.close()


def test_json_sink_writes_lines_and_messages_for_people() -> None:
    out_read, out = os.pipe()
    log_read, log = os.pipe()
    sink = JsonSink(out, log, priorities=True)
    sink.write([EVENT, MESSAGE])
    os.close(out)
    os.close(log)
    with os.fdopen(out_read) as stream:
        assert [json.loads(line)["type"] for line in stream] == ["flow", "policy-loaded"]
    with os.fdopen(log_read) as stream:
        assert stream.read() == "<6>cgnetd: generation 7 is in force\n"
    assert sink.dropped == 0


def test_json_sink_survives_a_closed_reader() -> None:
    read, out = os.pipe()
    os.close(read)
    sink = JsonSink(out, out, priorities=False)
    sink.write([EVENT])
    assert sink.dropped == 1
    os.close(out)


def test_json_sink_does_not_wait_for_a_reader_that_stopped_and_loses_no_line_it_kept() -> None:
    read, out = os.pipe()
    sink = JsonSink(out, out, priorities=False)
    line = len(json.dumps(EVENT.to_json())) + 1
    records = [EVENT] * (3 * 64 * 1024 // line)
    sink.write(records)
    assert sink.dropped == 0
    seen = b""
    os.set_blocking(read, False)
    for _ in range(100):
        try:
            seen += os.read(read, 1 << 20)
        except BlockingIOError:
            break
        sink.flush()
    assert [json.loads(text)["pid"] for text in seen.splitlines()] == [42] * len(records)
    os.close(read)
    os.close(out)


def test_event_log_remembers_the_last_ones_and_tells_followers() -> None:
    sink = Recorder()
    log = EventLog(sink, remembered=2)
    heard: list[Record] = []
    unfollow = log.follow(heard.extend)
    log.publish([EVENT, MESSAGE])
    log.publish([MESSAGE])
    unfollow()
    unfollow()
    log.publish([EVENT])
    assert log.recent() == (MESSAGE, EVENT)
    assert log.recent(1) == (EVENT,)
    assert log.recent(0) == ()
    assert heard == [EVENT, MESSAGE, MESSAGE]
    assert sink.records == [EVENT, MESSAGE, MESSAGE, EVENT]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system.slice/nginx.service", Units("nginx.service", "")),
        ("/system.slice/docker.service/payload", Units("docker.service", "")),
        ("/system.slice", Units("system.slice", "")),
        ("/a.slice/a-b.slice/x.scope/inner.service", Units("inner.service", "")),
        ("/user.slice/user-1000.slice/session-2.scope", Units("session-2.scope", "")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1.scope",
            Units("user@1000.service", "app-firefox-1.scope"),
        ),
        ("/user.slice/user-1000.slice/user@1000.service", Units("user@1000.service", "")),
        ("/", Units("", "")),
        ("/docker/0123", Units("", "")),
        ("", Units("", "")),
    ],
)
def test_units_of_a_path(path: str, expected: Units) -> None:
    assert units_of(path) == expected
