# SPDX-License-Identifier: Apache-2.0
"""Broken settings stop a verb only if it needs something of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgnetd.cli import ctl
from cgnetd.service import places

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: web}
spec:
  subject: {units: [web.service]}
  default: {egress: deny}
"""
BAD_SETTINGS = 78


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of the system."""
    path = tmp_path / "etc" / "cgnetd.yaml"
    path.parent.mkdir()
    path.write_text("nonsense: true\n", encoding="utf-8")
    monkeypatch.setattr(places, "CONFIG", str(path))
    monkeypatch.setattr(places, "CONTROL_SOCKET", str(tmp_path / "nobody.sock"))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policies" / "web.yaml"
    path.parent.mkdir()
    path.write_text(POLICY, encoding="utf-8")
    return path


def test_check_of_a_named_file_goes_on_with_a_warning(
    broken: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["check", str(policy)]) == 0
    out = capsys.readouterr().out
    assert f"{broken}:1:1: nonsense: unknown key" in out
    assert "1 warning" in out


@pytest.mark.parametrize("words", [("check",), ("status",), ("flush",)])
def test_verbs_that_need_them_say_what_is_wrong(
    broken: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(list(words)) == BAD_SETTINGS
    assert f"{broken}:1:1: nonsense: unknown key" in capsys.readouterr().err


def test_check_by_settings_that_are_named_needs_them(
    broken: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["check", "--config", str(broken), str(policy)]) == BAD_SETTINGS
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.usefixtures("broken")
def test_explain_of_named_files_and_a_path_asks_nothing_else(policy: Path) -> None:
    call = ("connect", "tcp", "192.0.2.1:80", "--policy-dir", str(policy.parent))
    assert ctl.main(["explain", "/system.slice/web.service", *call]) == 1
    assert ctl.main(["explain", "/system.slice/other.service", *call]) == 0


@pytest.mark.usefixtures("broken")
def test_flush_of_named_pins_asks_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["flush", "--pin-dir", str(tmp_path / "pins")]) == 0
    assert capsys.readouterr().out.startswith(f"flushed {tmp_path / 'pins'}: ")
