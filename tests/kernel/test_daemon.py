# SPDX-License-Identifier: Apache-2.0
"""The real daemon: policies in force, reloads, what a mistake changes (nothing), starts, stops and flush."""

from __future__ import annotations

import calendar
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cgnetd.cli.problems import DaemonError
from cgnetd.datapath.abi import CHAIN_MAX
from pybpf import Map
from support.governed import OPEN, SHUT, Governed, connect, eventually, governed, policy
from support.sandbox import PrivateCgroup

DENIED = errno.EHOSTUNREACH

# Connects without end from a cgroup to a port, and at SIGTERM prints how often which errno came.
_HAMMER = """
import collections, json, os, signal, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
seen, going = collections.Counter(), True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
while going:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        seen[made.connect_ex(("127.0.0.1", int(sys.argv[2])))] += 1
print(json.dumps(list(seen.items())))
"""


@pytest.fixture
def app(tmp_path: Path, private_cgroup: PrivateCgroup, pin_dir: Path, objects: Path) -> Iterator[Governed]:
    with governed(tmp_path, private_cgroup, pin_dir, objects) as found:
        yield found


def links(pin_dir: Path) -> dict[str, int]:
    """Inode by name of the pinned links. A link that the daemon unpins meanwhile is left out."""
    found = {}
    for path in (pin_dir / "links").iterdir():
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_ino
    return found


def test_policy_is_in_force_when_the_daemon_is_ready(app: Governed) -> None:
    app.start()
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
    assert connect(app.tree.child("other"), SHUT) == 0
    status = app.daemon.ask("status")
    assert (status["enforcing"], status["reasons"], status["generation"]) == (True, [], 1)
    assert status["governed_cgroups"] == 1
    assert set(status["hooks"].values()) == {"ok"}
    (shown,) = status["policies"]
    assert (shown["name"], shown["rules"], shown["governed"], shown["decided"]) == ("app", 2, 1, 2)
    counts = {row["rule"]: row["enforced"] for row in status["counters"] if row["policy"]}
    assert counts == {"open": 1, "rest": 1}


def test_status_tells_what_the_tables_in_force_take(app: Governed) -> None:
    app.start("--set", "limits.image_bytes=1048576")
    sizes = app.daemon.ask("status")["sizes"]
    assert (sizes["image_bytes"] > 0, sizes["limit_bytes"]) == (True, 1024**2)
    for name, size in (("image", "image_bytes"), ("counters", "counters_bytes")):
        (pin,) = (app.pin_dir / "slots").glob(f"*/{name}")
        with Map.from_pin(pin) as table:
            assert sizes[size] == table.info.value_size * table.info.max_entries


def test_event_tells_who_what_where_and_why(app: Governed) -> None:
    app.start("--set", "audit.window=200ms")
    for _ in range(3):
        connect(app.app, SHUT)
    eventually(lambda: sum(told["count"] for told in app.records("flow")) >= 3, "every call")
    first, *rest = app.records("flow")
    assert (first["count"], sum(told["count"] for told in rest)) == (1, 2)  # one window's, on a host that is quick
    last = rest[-1]
    assert (last["verdict"], last["hook"], last["protocol"], last["family"]) == ("deny", "connect", "udp", 4)
    assert (last["remote_address"], last["remote_port"], last["errno"]) == ("127.0.0.1", SHUT, "EHOSTUNREACH")
    assert (last["policy"], last["rule"], last["line"], last["generation"]) == ("app", "rest", 8, 1)
    assert (last["cgroup"], last["cgroup_id"], last["decided_by"]) == ("/app", app.app.id, "task")
    assert last["first_seen"] <= last["last_seen"] <= last["time"]
    assert abs(time.time() - calendar.timegm(time.strptime(last["time"][:19], "%Y-%m-%dT%H:%M:%S"))) < 60


def test_changed_file_is_in_force_without_being_told(app: Governed) -> None:
    app.start()
    app.daemon.write_policy("app.yaml", policy(allowed=SHUT))
    eventually(lambda: connect(app.app, SHUT) == 0, "the changed policy")
    assert connect(app.app, OPEN) == DENIED


def test_reload_returns_when_the_new_generation_is_in_force(app: Governed) -> None:
    app.start()
    result = app.daemon.reload_after(lambda: app.daemon.write_policy("app.yaml", policy(allowed=SHUT)))
    assert (result["generation"], result["changed"]) == (2, True)
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (DENIED, 0)
    assert app.daemon.ask("reload")["changed"] is False


def test_counters_go_on_across_generations(app: Governed) -> None:
    app.start()
    for port in (OPEN, SHUT, SHUT):
        connect(app.app, port)
    text = policy().replace("    - {name: open", "    - {name: new, action: allow, ports: [99]}\n    - {name: open")
    app.daemon.write_policy("app.yaml", text)
    app.daemon.ask("reload")
    connect(app.app, SHUT)
    counts = {row["rule"]: row["enforced"] for row in app.daemon.ask("status")["counters"] if row["policy"]}
    assert counts == {"new": 0, "open": 1, "rest": 3}


@pytest.mark.parametrize("number", [signal.SIGHUP])
def test_signal_reloads(app: Governed, number: int) -> None:
    app.start("--set", "limits.reconcile_interval=1h")
    loaded = len(app.records("policy-loaded"))
    os.utime(app.daemon.policy_dir / "app.yaml")
    app.daemon.write_policy("app.yaml", policy(allowed=SHUT))
    app.daemon.signal(number)
    app.await_record("policy-loaded", after=loaded)
    assert connect(app.app, SHUT) == 0


def test_mistake_rejects_the_set_and_what_is_in_force_stays(app: Governed) -> None:
    app.start()
    app.daemon.write_policy("bad.yaml", "kind: Polcy\n")
    app.daemon.write_policy("app.yaml", policy(allowed=SHUT))
    with pytest.raises(DaemonError) as caught:
        app.daemon.ask("reload")
    assert caught.value.exit_code == 78
    assert [problem.file for problem in caught.value.problems] == [str(app.daemon.policy_dir / "bad.yaml")]
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
    status = app.daemon.ask("status")
    assert (status["enforcing"], status["generation"], len(status["problems"])) == (True, 1, 1)
    app.await_record("policy-rejected")
    (app.daemon.policy_dir / "bad.yaml").unlink()
    assert app.daemon.ask("reload")["generation"] == 2
    assert app.daemon.ask("status")["problems"] == []
    assert len(app.records("policy-rejected")) == 1


def test_half_written_file_never_takes_effect(app: Governed) -> None:
    app.start("--set", "limits.reconcile_interval=100ms")
    path = app.daemon.policy_dir / "app.yaml"
    whole = policy(allowed=SHUT)
    with path.open("w") as writer:
        writer.write(whole[: whole.index("    - {name: rest")])  # valid as it is, but not what the writer means
        writer.flush()
        app.await_passes(3)
        assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
        assert app.daemon.ask("status")["generation"] == 1
        with pytest.raises(DaemonError, match="open for writing"):
            app.daemon.ask("reload")
        writer.write(whole[whole.index("    - {name: rest") :])
    eventually(lambda: connect(app.app, SHUT) == 0, "the whole file")
    assert connect(app.app, OPEN) == DENIED
    assert app.records("policy-rejected") == []


def test_editors_save_is_one_pass(app: Governed) -> None:
    app.start("--set", "limits.reconcile_interval=1h")
    loaded = len(app.records("policy-loaded"))
    path = app.daemon.policy_dir / "app.yaml"
    with app.daemon.paused():  # however slow the host makes this, it is quick for the daemon
        for step in range(5):
            path.rename(path.with_suffix(".yaml~"))
            path.write_text(policy(allowed=3000 + step))
    app.await_record("policy-loaded", after=loaded)
    app.daemon.write_policy("app.yaml", policy(allowed=3005))
    app.await_record("policy-loaded", after=loaded + 1)
    assert [told["generation"] for told in app.records("policy-loaded")][loaded:] == [2, 3]
    assert connect(app.app, 3005) == 0


def test_set_file_is_followed(app: Governed, tmp_path: Path) -> None:
    listed = tmp_path / "sets" / "list.txt"
    listed.parent.mkdir()
    listed.write_text("127.0.0.1\n")
    document = "---\napiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {name: s}\nspec:\n  files:\n    - "
    text = policy().replace("ports: [1111]", 'to: ["set:s"]') + document + f"{listed}\n"
    app.daemon.write_policy("app.yaml", text)
    app.start("--set", "limits.reconcile_interval=1h")
    assert connect(app.app, SHUT) == 0
    listed.write_text("127.0.0.2\n")
    eventually(lambda: connect(app.app, SHUT) == DENIED, "the changed set")


def test_new_cgroup_is_governed_while_the_daemon_is_dead(app: Governed) -> None:
    app.start()
    app.daemon.kill()
    assert connect(app.tree.child("late/one"), SHUT) == DENIED
    assert connect(app.tree.child("late/one/below"), SHUT) == DENIED
    app.start()
    assert app.daemon.ask("status")["governed_cgroups"] == 3
    assert app.records("drift-repaired") == []


def test_stop_leaves_enforcement_on_and_start_adopts_it_untouched(app: Governed) -> None:
    app.start()
    before = links(app.pin_dir)
    image = (app.pin_dir / "slots/1/image").stat().st_ino
    assert app.daemon.stop() == 0
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
    app.start()
    assert links(app.pin_dir) == before
    assert (app.pin_dir / "slots/1/image").stat().st_ino == image
    assert app.await_record("policy-loaded", after=1)["adopted"] is True
    assert app.daemon.ask("status")["generation"] == 1


def test_restart_with_other_files_has_no_moment_without_the_right_verdict(app: Governed) -> None:
    """What both generations say alike must hold all the time, and an ungoverned cgroup must never be denied."""
    app.start()
    free = app.tree.child("free")
    workers = [
        app.tree.popen([sys.executable, "-c", _HAMMER, str(cgroup.path), str(port)], stdout=subprocess.PIPE, text=True)
        for cgroup, port in ((app.app, OPEN), (app.app, SHUT), (free, SHUT))
    ]
    for step in range(8):
        if step % 2:
            app.daemon.kill()
        else:
            app.daemon.stop()
        extra = f"    - {{name: more, action: allow, ports: [{4000 + step}]}}\n    - {{name: rest"
        app.daemon.write_policy("app.yaml", policy().replace("    - {name: rest", extra))
        app.start()
    answers = []
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        answers.append(dict(json.loads(worker.communicate(timeout=60)[0])))
    assert [set(seen) for seen in answers] == [{0}, {DENIED}, {0}]
    assert all(sum(seen.values()) > 1000 for seen in answers)


def test_start_with_broken_files_keeps_what_is_in_force_and_knows_its_names(app: Governed) -> None:
    app.start()
    app.daemon.stop()
    app.daemon.write_policy("app.yaml", "kind: [\n")
    app.start()
    assert (connect(app.app, OPEN), connect(app.app, SHUT)) == (0, DENIED)
    status = app.daemon.ask("status")
    assert (status["enforcing"], status["generation"], len(status["problems"])) == (True, 1, 1)
    assert [shown["name"] for shown in status["policies"]] == ["app"]
    explained = app.daemon.ask("explain", cgroup="/app", hook="connect", protocol="udp", address="::1", port=5)
    assert (explained["verdict"], explained["rule"], explained["errno"]) == ("deny", "rest", "EHOSTUNREACH")


def test_start_with_broken_files_and_nothing_in_force_says_so(app: Governed) -> None:
    app.daemon.write_policy("app.yaml", "kind: [\n")
    app.start()
    status = app.daemon.ask("status")
    assert status["enforcing"] is False
    assert status["reasons"] == ["no generation is in force", "the policy files have errors"]
    app.await_record("not-enforcing")
    assert connect(app.app, SHUT) == 0
    app.daemon.write_policy("app.yaml", policy())
    eventually(lambda: connect(app.app, SHUT) == DENIED, "the mended policy")


def test_without_policies_nothing_is_attached(app: Governed) -> None:
    app.start()
    (app.daemon.policy_dir / "app.yaml").unlink()
    eventually(lambda: connect(app.app, SHUT) == 0, "the end of the policy")
    status = app.daemon.ask("status")
    assert (status["enforcing"], status["reasons"], status["hooks"]) == (False, ["there are no policies"], {})
    assert links(app.pin_dir) == {}
    app.daemon.write_policy("app.yaml", policy())
    assert app.daemon.ask("reload")["generation"] == 2
    assert connect(app.app, SHUT) == DENIED


def test_only_the_hooks_that_policies_need_are_attached(app: Governed) -> None:
    app.start()
    assert not {"bind4", "post_bind6"} & links(app.pin_dir).keys()
    bind = "  bind:\n    - {name: low, action: deny, ports: [1-1023]}\n"
    app.daemon.write_policy("app.yaml", policy() + bind)
    app.daemon.ask("reload")
    assert {"bind4", "bind6", "post_bind4", "post_bind6"} <= links(app.pin_dir).keys()
    app.daemon.write_policy("app.yaml", policy())
    app.daemon.ask("reload")
    eventually(lambda: not {"bind4", "post_bind6"} & links(app.pin_dir).keys(), "detached hooks")


def test_flush_takes_everything_away_until_a_reload(app: Governed) -> None:
    app.start("--set", "limits.reconcile_interval=100ms")
    app.daemon.ask("flush")
    assert not app.pin_dir.exists()
    app.await_passes(3)
    assert connect(app.app, SHUT) == 0
    assert app.daemon.ask("status")["enforcing"] is False
    app.daemon.ask("reload")
    assert connect(app.app, SHUT) == DENIED
    assert app.daemon.ask("status")["generation"] == 2
    assert app.await_record("flow")["policy"] == "app"


def test_cgroup_with_too_many_policies_is_denied_and_told(app: Governed) -> None:
    text = "---\n".join(policy().replace("name: app", f"name: app{number}", 1) for number in range(CHAIN_MAX + 1))
    app.daemon.write_policy("app.yaml", text)
    app.start()
    assert connect(app.app, OPEN) == errno.EPERM
    assert app.await_record("flow")["rule"] == "overflow"
    assert app.daemon.ask("status")["overflow"] == {"cgroups": 1, "examples": ["/app"]}


def test_second_daemon_refuses_and_says_who_is_there(app: Governed, tmp_path: Path) -> None:
    app.start()
    words = ["--pin-dir", str(app.pin_dir), "--cgroup-root", str(app.tree.path), "--audit", "stdout"]
    for option in (["--once"], ["--control-socket", str(tmp_path / "other.sock")]):
        code = "import sys; from cgnetd.cli.daemon import main; sys.exit(main())"
        argv = [sys.executable, "-c", code, *words, "--policy-dir", str(app.daemon.policy_dir), *option]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert second.stdout == ""
        (line,) = second.stderr.splitlines()
        assert f"pid {app.daemon.pid}" in line
    assert connect(app.app, SHUT) == DENIED


def test_idle_daemon_is_small_and_asleep(app: Governed) -> None:
    app.start("--set", "limits.reconcile_interval=1h", "--set", "audit.window=100ms")
    connect(app.app, SHUT)
    app.await_record("flow")

    def is_asleep() -> bool:
        before = app_status(app.daemon.pid)
        time.sleep(2.0)
        return app_status(app.daemon.pid)["voluntary_ctxt_switches"] == before["voluntary_ctxt_switches"]

    eventually(is_asleep, "two seconds in which nothing wakes it")
    assert app_status(app.daemon.pid)["VmRSS"] < 60_000


def app_status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) for name in ("VmRSS", "voluntary_ctxt_switches")}
