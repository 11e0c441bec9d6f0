# SPDX-License-Identifier: Apache-2.0
"""`pip install .`, in two steps, of a copy of the checkout: what comes out is whole and enforces.

What it depends on is lent by the environment of the tests, so that no package index is asked.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.sandbox import PrivateCgroup

TOP = Path(__file__).parents[2]
pytestmark = pytest.mark.kernel

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: nothing}
spec:
  subject: {cgroups: [/governed]}
  egress: [{name: all, action: deny, errno: EHOSTUNREACH}]
"""
PORT = 9  # nobody listens there


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, clang: str) -> Path:
    """The virtual environment."""
    assert clang
    top = tmp_path_factory.mktemp("wheel")
    subprocess.run([TOP / "packaging/stage.sh", top / "copy"], check=True)
    venv = top / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    alone = ("--no-deps", "--no-index")
    build = ("wheel", *alone, "--no-build-isolation", "--wheel-dir", top, top / "copy")
    subprocess.run([sys.executable, *pip, *build], check=True, cwd=top)
    (wheel,) = top.glob("*.whl")
    python = ("--python", venv / "bin/python")
    subprocess.run([sys.executable, *pip, *python, "install", *alone, wheel], check=True, cwd=top)
    (packages(venv) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return venv


def packages(venv: Path) -> Path:
    (found,) = venv.glob("lib/python3*/site-packages")
    return found


def run(venv: Path, *words: str | Path) -> str:
    """What an installed command says. AssertionError if it fails."""
    command = [venv / "bin" / words[0], *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_every_program_and_module(installed: Path) -> None:
    site = packages(installed)
    wanted = {path.with_suffix(".o").name for path in (TOP / "bpf").glob("*.bpf.c")}
    objects = site / "cgnetd/kernel/objects"
    assert {path.name for path in objects.iterdir()} == {name for name in wanted if not name.endswith("_test.bpf.o")}
    for package in ("cgnetd", "pybpf"):
        source = TOP / "daemon" / package
        wanted = {str(path.relative_to(source)) for path in source.rglob("*.py")} | {"py.typed"}
        assert {str(path.relative_to(site / package)) for path in (site / package).rglob("*")} >= wanted


def test_installed_commands_tell_their_version_and_check_policies(installed: Path) -> None:
    assert run(installed, "cgnetd", "--version").startswith("cgnetd ")
    assert "1 file: ok" in run(installed, "cgnetctl", "check", TOP / "config/examples/web-service.yaml")


def test_installed_programs_load_and_enforce(
    installed: Path, private_cgroup: PrivateCgroup, bpffs: Path, tmp_path: Path
) -> None:
    governed = private_cgroup.child("governed")
    (tmp_path / "nothing.yaml").write_text(POLICY, encoding="utf-8")
    pins = ("--config", os.devnull, "--pin-dir", str(bpffs / "pins"))
    assert governed.call(connect) == errno.ECONNREFUSED
    run(installed, "cgnetd", "--once", *pins, "--cgroup-root", private_cgroup.path, "--policy-dir", tmp_path)
    assert governed.call(connect) == errno.EHOSTUNREACH
    run(installed, "cgnetctl", "flush", *pins)
    assert governed.call(connect) == errno.ECONNREFUSED


def connect() -> int:
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", PORT))
