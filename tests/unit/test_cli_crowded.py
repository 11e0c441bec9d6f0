# SPDX-License-Identifier: Apache-2.0
"""Cgroups with more policies than fit are told by `check` and `explain` before anything is denied there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cgnetd.cli import ctl
from cgnetd.datapath.abi import CHAIN_MAX

POLICY = """\
---
apiVersion: cgnetd/v1
kind: Policy
metadata: {{name: p{number}}}
spec: {{subject: {subject}, egress: [{{action: allow}}]}}
"""


def write(directory: Path, count: int, subject: str) -> str:
    text = "".join(POLICY.format(number=number, subject=subject) for number in range(count))
    (directory / "many.yaml").write_text(text, encoding="utf-8")
    return str(directory)


def warnings(place: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert ctl.main(["check", place, "--json", "--config", "/dev/null"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["warnings"]
    return found


@pytest.mark.parametrize(
    ("subject", "path"),
    [
        ('{cgroups: ["/a/b"]}', "/a/b"),
        ('{cgroups: ["/a/[xy]?/**"]}', "/a/xx/x"),
        ("{units: [web]}", "/system.slice/web.service"),
        ("{slices: [a-b.slice]}", "/a.slice/a-b.slice"),
        ("{userUnits: [app.scope]}", "/user.slice/user-1000.slice/user@1000.service/app.scope"),
    ],
)
def test_crowded_cgroup_is_told_once(
    subject: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warnings(write(tmp_path, CHAIN_MAX, subject), capsys) == []
    (warning,) = warnings(write(tmp_path, CHAIN_MAX + 1, subject), capsys)
    assert warning["line"] == 2
    assert f"every call in {path} will be denied" in str(warning["message"])


def test_many_policies_in_places_of_their_own_are_no_crowd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(POLICY.format(number=n, subject=f'{{cgroups: ["/p{n}"]}}') for n in range(CHAIN_MAX + 5))
    (tmp_path / "many.yaml").write_text(text, encoding="utf-8")
    assert warnings(str(tmp_path), capsys) == []


def test_explain_of_a_crowded_cgroup_says_denied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", "/a/b", "connect", "tcp", "10.0.0.1:1", "--policy-dir"]
    assert ctl.main([*words, write(tmp_path, CHAIN_MAX, '{cgroups: ["/a"]}')]) == 0
    capsys.readouterr()
    assert ctl.main([*words, write(tmp_path, CHAIN_MAX + 1, '{cgroups: ["/a"]}')]) == 1
    out = capsys.readouterr().out
    assert "deny (EPERM)\n  by the daemon's overflow" in out
    assert "more policies govern this cgroup than fit" in out
