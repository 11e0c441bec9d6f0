# SPDX-License-Identifier: Apache-2.0
"""cgnetctl as people run it, as far as it needs no daemon: exit codes, JSON, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest

from cgnetd import __version__
from cgnetd.cli import ctl, daemon, status
from cgnetd.cli.amount import amount
from cgnetd.service import places

POLICY = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: web}
spec:
  subject: {units: [web.service]}
  egress:
    - {name: upstream, action: allow, to: [10.0.0.0/8], protocols: [tcp], ports: [443]}
    - {name: rest, action: deny, errno: ECONNREFUSED}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: trial}
spec:
  subject: {slices: [system.slice]}
  tier: admin
  mode: audit
  default: {egress: deny}
"""


DETOURS = """\
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: detours}
spec:
  subject: {units: [web.service]}
  egress:
    - {name: own, action: allow, to: [10.0.0.9], ports: [80]}
    - {name: no-local, action: deny, to: [127.0.0.2]}
    - {name: into-guard, action: redirect, to: [192.0.2.1], redirect: {to: "127.0.0.1:9090"}}
    - {name: into-own, action: redirect, to: [192.0.2.2], redirect: {to: 127.0.0.2}}
    - {name: circle, action: redirect, to: [10.0.0.0/8], redirect: {to: "10.0.0.1:80"}}
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {name: guard}
spec:
  subject: {slices: [system.slice]}
  tier: admin
  egress:
    - {name: no-admin, action: deny, to: [localhost], ports: [9090]}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policy.d"
    directory.mkdir()
    (directory / "web.yaml").write_text(POLICY, encoding="utf-8")
    return directory


@pytest.fixture
def settings(tmp_path: Path, policies: Path) -> Path:
    path = tmp_path / "cgnetd.yaml"
    path.write_text(f"policy_dirs: [{policies}]\ncontrol_socket: {tmp_path}/control.sock\n", encoding="utf-8")
    return path


class Ctl:
    """Runs cgnetctl in this process."""

    def __init__(self, settings: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._settings = settings
        self._capture = capture

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._capture.readouterr()
        code = ctl.main(["--config", str(self._settings), *words])
        captured = self._capture.readouterr()
        return code, captured.out, captured.err

    def json(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self(*words, "--json")
        assert not err
        return code, json.loads(out)


@pytest.fixture
def cgnetctl(settings: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(settings, capsys)


def test_check_of_good_policies_exits_0_with_sizes(cgnetctl: Ctl) -> None:
    code, data = cgnetctl.json("check")
    assert code == 0
    assert data["ok"] is True
    assert data["sizes"]["bytes"] > 0
    assert set(data["sizes"]["by_policy"]) == {"web", "trial"}
    code, out, _ = cgnetctl("check")
    assert code == 0
    assert "1 file: ok" in out


def test_check_tells_the_memory_of_the_image(cgnetctl: Ctl) -> None:
    sizes = cgnetctl.json("check")[1]["sizes"]
    assert (sizes["bytes"], sizes["limit_bytes"], sizes["live_bytes"]) == (8 * sizes["cells"], 64 * 1024**2, 0)
    parts = sizes["by_policy"].values()
    assert all(part["bytes"] == 8 * part["cells"] > 0 for part in parts)
    assert sum(part["bytes"] for part in parts) < sizes["bytes"]
    assert "\nmemory: 64.0 KiB of tables, at most 64.0 MiB (limits.image_bytes)\n" in cgnetctl("check")[1]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1023 * 1024, "1023.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (65536 * 3 // 2, "96.0 KiB"),
        (5 * 1024**4, "5120.0 GiB"),
    ],
)
def test_amount_is_in_the_largest_unit_that_it_fills(size_bytes: int, text: str) -> None:
    assert amount(size_bytes) == text


def test_check_of_bad_policies_exits_78_with_every_error(cgnetctl: Ctl, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(POLICY.replace("10.0.0.0/8", "10.0.0.1/8").replace("ECONNREFUSED", "EOOPS"), encoding="utf-8")
    code, data = cgnetctl.json("check", str(bad))
    assert code == 78
    assert [(error["line"], error["key"]) for error in data["errors"]] == [
        (7, "spec.egress[0].to[0]"),
        (8, "spec.egress[1].errno"),
    ]
    code, out, _ = cgnetctl("check", str(bad))
    assert code == 78
    assert f"error: {bad}:7:" in out
    assert "2 errors" in out


def test_check_warns_of_redirects_into_a_deny_and_into_themselves(cgnetctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "detours.yaml"
    path.write_text(DETOURS, encoding="utf-8")
    code, data = cgnetctl.json("check", str(path))
    assert code == 0
    told = {warning["line"]: warning["message"] for warning in data["warnings"]}
    assert set(told) == {9, 10, 11}
    assert "guard" in told[9]
    assert f"{path}:20" in told[9]
    assert "line 8" in told[10]
    assert "itself" in told[11]
    assert (data["sizes"]["effects"], data["sizes"]["services"], data["sizes"]["live"]) == (3, 0, 0)


def test_check_takes_files_and_directories_together(cgnetctl: Ctl, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(POLICY, encoding="utf-8")
    code, data = cgnetctl.json("check", str(policies), str(tmp_path / "again.yaml"))
    assert code == 78
    assert len(data["files"]) == 2
    assert all("web" in error["message"] or "trial" in error["message"] for error in data["errors"])


def test_check_of_a_place_that_is_not_there_is_a_usage_error(cgnetctl: Ctl) -> None:
    code, _, err = cgnetctl("check", "/nowhere/at/all.yaml")
    assert code == 2
    assert "/nowhere/at/all.yaml: no such file or directory" in err


def test_explain_of_an_allowed_call_exits_0_and_names_the_rule(cgnetctl: Ctl, policies: Path) -> None:
    code, said = cgnetctl.json(
        "explain", "web.service", "connect", "tcp", "10.1.2.3:443", "--policy-dir", str(policies)
    )
    assert code == 0
    assert (said["verdict"], said["policy"], said["rule"]) == ("allow", "web", "upstream")
    assert (said["file"], said["line"]) == (f"{policies}/web.yaml", 7)
    assert (said["shadow_verdict"], said["shadow_policy"], said["shadow_rule"]) == ("deny", "trial", "default.egress")
    assert [step["policy"] for step in said["steps"]] == ["trial", "web"]


def test_explain_of_a_cgroup_that_nothing_governs_names_no_default(cgnetctl: Ctl, policies: Path) -> None:
    words = ["explain", "/other", "connect", "tcp", "10.1.2.3:443", "--policy-dir", str(policies)]
    code, out, _ = cgnetctl(*words, "--default-action", "deny")
    assert code == 0
    assert "default_action" not in out
    assert "no policy governs this cgroup" in out


def test_explain_of_a_denied_call_exits_1_and_says_why(cgnetctl: Ctl, policies: Path) -> None:
    words = ("explain", "web.service", "connect", "tcp", "[2001:db8::1]:443", "--policy-dir", str(policies))
    code, out, _ = cgnetctl(*words)
    assert code == 1
    assert "deny (ECONNREFUSED)" in out
    assert f"web/rest at {policies}/web.yaml:8" in out
    assert "taken as /system.slice/web.service" in out


def test_explain_of_an_ungoverned_cgroup_is_allowed_whatever_the_default(cgnetctl: Ctl, policies: Path) -> None:
    words = ("/other", "bind", "tcp", "0.0.0.0:80", "--policy-dir", str(policies), "--default-action", "deny")
    code, said = cgnetctl.json("explain", *words)
    assert (code, said["verdict"], said["steps"]) == (0, "allow", [])


def test_explain_gives_a_governed_cgroup_the_default_action(cgnetctl: Ctl, policies: Path) -> None:
    words = ("web.service", "bind", "tcp", "0.0.0.0:80", "--policy-dir", str(policies), "--default-action", "deny")
    code, said = cgnetctl.json("explain", *words)
    assert (code, said["verdict"], said["errno"], said["rule"]) == (1, "deny", "EPERM", "default_action")


def test_explain_of_bad_policies_exits_78(cgnetctl: Ctl, policies: Path) -> None:
    (policies / "bad.yaml").write_text("kind: Policy\n", encoding="utf-8")
    code, data = cgnetctl.json("explain", "web", "connect", "tcp", "10.0.0.1:1", "--policy-dir", str(policies))
    assert code == 78
    assert data["error"]["problems"][0]["file"] == f"{policies}/bad.yaml"


@pytest.mark.parametrize("verb", ["status", "events", "reload"])
def test_verbs_that_need_a_daemon_exit_3_without_one(cgnetctl: Ctl, verb: str, tmp_path: Path) -> None:
    code, _, err = cgnetctl(verb)
    assert code == 3
    assert f"{tmp_path}/control.sock" in err
    code, data = cgnetctl.json(verb)
    assert (code, data["error"]["exit_code"]) == (3, 3)


def test_version_is_that_of_the_installed_package() -> None:
    assert metadata.version("cgnetd") == __version__


def test_version_needs_no_daemon(cgnetctl: Ctl) -> None:
    code, data = cgnetctl.json("version")
    assert code == 0
    assert data["cgnetctl"]
    assert data["cgnetd"] is None


@pytest.mark.parametrize("verb", ctl.LATER_VERBS)
def test_verbs_of_later_versions_are_known_by_name(cgnetctl: Ctl, verb: str) -> None:
    code, _, err = cgnetctl(verb, "--whatever", "else")
    assert code == 2
    assert f"{verb}: not supported yet by this version" in err


@pytest.mark.parametrize(
    "words",
    [[], ["frobnicate"], ["status", "--frobnicate"], ["status", "extra"], ["events", "-n", "x"], ["explain", "web"]],
)
def test_a_command_line_that_cannot_be_understood_exits_2(cgnetctl: Ctl, words: list[str]) -> None:
    code, out, err = cgnetctl(*words)
    assert (code, out) == (2, "")
    assert err.startswith("cgnetctl: error: ")
    assert len(err.splitlines()) == 1


def test_common_options_are_taken_before_and_after_the_verb(tmp_path: Path) -> None:
    parser = ctl.parser({"status": cast(ctl.Verb, status)})
    before = parser.parse_args(["--json", "--control-socket", "/a", "status"])
    after = parser.parse_args(["status", "--json", "--control-socket", "/a"])
    assert vars(before) == vars(after)
    assert parser.parse_args(["--control-socket", "/a", "status", "--control-socket", "/b"]).control_socket == "/b"


def test_verb_imports_only_what_it_needs() -> None:
    if os.path.exists(places.CONFIG):
        pytest.skip(f"{places.CONFIG} is there, and so is read")
    code = (
        "import sys; from cgnetd.cli.ctl import main; main(['reload', *sys.argv[1:]])\n"
        "unneeded = ('pybpf', 'yaml', 'pydantic', 'dataclasses', 'cgnetd.policy')\n"
        "print(*(name for name in unneeded if name in sys.modules))"
    )
    for words in (["--control-socket", "/nowhere"], []):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True, text=True)
        assert done.stdout.strip() == ""


def test_help_tells_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["--help", "status"]):
        with pytest.raises(SystemExit):
            ctl.main(words)
        out = capsys.readouterr().out
        assert all(f"    {name} " in out for name in ctl.VERBS)


def test_bad_settings_exit_78(cgnetctl: Ctl, settings: Path) -> None:
    settings.write_text("policy_dirs: 7\n", encoding="utf-8")
    code, _, err = cgnetctl("status")
    assert code == 78
    assert f"{settings}:1:" in err


def test_daemon_command_line_overrides_settings() -> None:
    words = ["--policy-dir", "/a", "--policy-dir", "b", "--audit", "stdout", "--default-action", "deny"]
    words += ["--pin-dir", "/p", "--set", "audit.window=2s", "--set", "limits.flows=300"]
    assert daemon.overrides(daemon.parser().parse_args(words)) == {
        "policy_dirs": ["/a", os.path.abspath("b")],
        "audit.sink": "stdout",
        "default_action": "deny",
        "pin_dir": "/p",
        "audit.window": "2s",
        "limits.flows": 300,
    }


@pytest.mark.parametrize(
    ("words", "code"), [(["--set", "nonsense"], 2), (["--frobnicate"], 2), (["--set", "audit.window=never"], 78)]
)
def test_daemon_with_a_bad_command_line_does_not_start(
    words: list[str], code: int, settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert daemon.main(["--config", str(settings), *words]) == code
    assert capsys.readouterr().err.startswith("cgnetd: error: ")


def test_a_reader_that_goes_away_is_no_error(settings: Path, policies: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "import sys; from cgnetd.cli.ctl import main; sys.exit(main())"]
    with os.fdopen(writer, "wb") as stdout:
        ended = subprocess.run(
            [*command, "--config", str(settings), "check"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            timeout=30,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_flush_does_not_take_other_pins_for_a_daemon_that_was_named(cgnetctl: Ctl, tmp_path: Path) -> None:
    code, _, err = cgnetctl("flush", "--control-socket", str(tmp_path / "other.sock"))
    assert code == 3
    assert "--pin-dir" in err


def test_flush_of_pins_that_are_not_there_is_done(cgnetctl: Ctl, tmp_path: Path) -> None:
    code, data = cgnetctl.json("flush", "--pin-dir", str(tmp_path / "none"))
    assert code == 0
    assert (data["links"], data["maps"], data["by"]) == ([], 0, "cgnetctl")
