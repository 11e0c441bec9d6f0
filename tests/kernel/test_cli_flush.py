# SPDX-License-Identifier: Apache-2.0
"""`cgnetd --once`, then `cgnetctl flush` and `explain` on what it left in force."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.sandbox import PrivateCgroup

pytestmark = pytest.mark.kernel

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: closed}
spec:
  subject: {units: [app.service]}
  default: {egress: deny}
"""
CONNECT = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9))"
TIMEOUT_S = 60


def program(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = f"import sys; from cgnetd.cli.{name} import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", command, *words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def connects_in(cgroup: PrivateCgroup) -> bool:
    with cgroup.popen([sys.executable, "-c", CONNECT], stderr=subprocess.DEVNULL) as client:
        return client.wait(TIMEOUT_S) == 0


@pytest.fixture
def options(private_cgroup: PrivateCgroup, bpffs: Path, tmp_path: Path) -> list[str]:
    """Of a daemon on private directories."""
    (tmp_path / "closed.yaml").write_text(POLICY, encoding="utf-8")
    settings = tmp_path / "cgnetd.conf"
    settings.touch()
    found = ["--config", str(settings), "--policy-dir", str(tmp_path), "--pin-dir", str(bpffs / "pins")]
    return [*found, "--cgroup-root", str(private_cgroup.path), "--audit", "stdout"]


def test_once_leaves_policies_in_force_and_flush_takes_them_away(
    options: list[str], private_cgroup: PrivateCgroup, bpffs: Path
) -> None:
    ended = program("daemon", *options, "--once")
    assert ended.returncode == 0, ended.stderr
    app = private_cgroup.child("app.service")
    assert not connects_in(app)
    assert connects_in(private_cgroup)
    flushed = program("ctl", "flush", "--pin-dir", str(bpffs / "pins"), "--control-socket", str(bpffs / "none"))
    assert flushed.returncode == 0, flushed.stderr
    assert connects_in(app)
    assert not (bpffs / "pins").exists()


def test_dry_run_tells_every_step_and_changes_nothing(options: list[str], bpffs: Path) -> None:
    ended = program("daemon", *options, "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert "attach connect4" in ended.stdout
    assert not (bpffs / "pins").exists()


def test_explain_finds_a_unit_and_a_process_below_the_root(private_cgroup: PrivateCgroup, tmp_path: Path) -> None:
    (tmp_path / "closed.yaml").write_text(POLICY, encoding="utf-8")
    app = private_cgroup.child("some.slice/app.service")
    options = ["--policy-dir", str(tmp_path), "--cgroup-root", str(private_cgroup.path)]
    call = ["connect", "tcp", "192.0.2.1:80"]
    with app.popen(["sleep", "60"]) as process:
        try:
            while str(process.pid) not in (app.path / "cgroup.procs").read_text().split():
                assert process.poll() is None
            for subject in ("app", f"pid:{process.pid}"):
                said = program("ctl", "explain", subject, *call, *options)
                assert said.returncode == 1, said.stderr
                assert "/some.slice/app.service connect tcp 192.0.2.1:80: deny (EPERM)" in said.stdout
            missing = program("ctl", "explain", "pid:1", *call, *options)
            assert missing.returncode == 2
            assert f"below {private_cgroup.path}" in missing.stderr
        finally:
            process.kill()
