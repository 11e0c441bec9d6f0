# SPDX-License-Identifier: Apache-2.0
"""Settings: defaults, drop-ins, overrides, and what each mistake is told."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cgnetd.errors import SettingsError, UsageError
from cgnetd.service.settings import Settings
from cgnetd.service.settings_files import load_settings, parse_override
from cgnetd.service.settings_schema import schema_text

SHIPPED = Path(__file__).parents[2] / "config" / "cgnetd.yaml"
SECOND = 10**9


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_shipped_file_states_the_defaults() -> None:
    assert load_settings(str(SHIPPED)) == Settings()


def test_shipped_file_names_every_setting() -> None:
    shipped = yaml.safe_load(SHIPPED.read_text())
    whole = Settings().model_dump(by_alias=True)
    assert shipped.keys() == whole.keys()
    for section in ("audit", "metrics", "limits"):
        assert shipped[section].keys() == whole[section].keys()


def test_schema_is_current_and_fits_the_shipped_file() -> None:
    text = SHIPPED.with_name("settings.schema.json").read_text(encoding="utf-8")
    assert text == schema_text(), "run: .venv/bin/python config/make_schema.py"
    schema = json.loads(text)
    shipped = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    assert schema["properties"].keys() == shipped.keys()
    for section in ("audit", "metrics", "limits"):
        below = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]["properties"]
        assert [key for key, value in shipped[section].items() if not fits(below[key], value)] == []


def fits(schema: dict[str, Any], value: object) -> bool:
    """Whether a setting is what its schema accepts: a number in its range, a word, a text of a form, or one value."""
    if schema.get("type") == "integer":
        return isinstance(value, int) and schema["minimum"] <= value <= schema["maximum"]
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    return isinstance(value, str) and re.search(schema["pattern"], value) is not None


def test_group_may_be_none(tmp_path: Path) -> None:
    config = write(tmp_path / "cgnetd.yaml", "control_group: null\n")
    assert load_settings(config).control_group is None
    write(tmp_path / "cgnetd.yaml.d" / "10.yaml", "control_group: net\n")
    assert load_settings(config).control_group == "net"
    with pytest.raises(SettingsError, match="control_group: '' is not accepted"):
        load_settings(write(tmp_path / "empty.yaml", "control_group: ''\n"))


def test_dropins_win_key_by_key_in_order_of_name(tmp_path: Path) -> None:
    config = write(tmp_path / "cgnetd.yaml", "audit: {sink: stdout, window: 1s}\npin_dir: /a\n")
    write(tmp_path / "cgnetd.yaml.d" / "20.yaml", "audit: {window: 3s}\n")
    write(tmp_path / "cgnetd.yaml.d" / "10.yaml", "audit: {window: 2s}\npin_dir: /b/\n")
    write(tmp_path / "cgnetd.yaml.d" / ".hidden.yaml", "pin_dir: /c\n")
    write(tmp_path / "cgnetd.yaml.d" / "note.txt", "pin_dir: /d\n")
    settings = load_settings(config)
    assert (settings.audit.sink, settings.audit.window, settings.pin_dir) == ("stdout", 3 * SECOND, "/b")


def test_overrides_win_over_files(tmp_path: Path) -> None:
    config = write(tmp_path / "cgnetd.yaml", "audit: {window: 1s}\npolicy_dirs: [/a, /b]\n")
    overrides = dict([parse_override("audit.window=500ms")]) | {"policy_dirs": ["/c"], "cgroup_root": "/x"}
    settings = load_settings(config, overrides)
    assert settings.audit.window == SECOND // 2
    assert settings.policy_dirs == ("/c",)
    assert settings.cgroup_root == "/x"


def test_empty_file_and_empty_section_mean_the_defaults(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path / "a.yaml", "")) == Settings()
    assert load_settings(write(tmp_path / "b.yaml", "audit:\nlimits:\n")) == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auditt: {}\n", ':1:1: auditt: unknown key, accepted are policy_dirs, pin_dir, .*; did you mean "audit"'),
        ("audit:\n  windw: 1s\n", ":2:3: audit.windw: unknown key, accepted are sink, window; did you mean"),
        ("audit:\n  sink: syslog\n", ":2:3: audit.sink: 'syslog' is not accepted: .*'auto', 'journal' or 'stdout'"),
        ("audit: {window: 10}\n", ":1:9: audit.window: 10 is not accepted: accepted is a number with a unit"),
        ("audit: {window: 10 parsecs}\n", "audit.window: .*accepted is a number with a unit"),
        ("audit: {window: 1ms}\n", "audit.window: .*accepted is 100ms to 1h"),
        ("default_action: no\n", ":1:1: default_action: False is not accepted: .*'allow' or 'deny'"),
        ("pin_dir: here\n", "pin_dir: 'here' is not accepted: accepted is an absolute path"),
        ("policy_dirs: []\n", r"policy_dirs: \[\] is not accepted: accepted is a list with at least one item"),
        ("policy_dirs: /etc\n", "policy_dirs: '/etc' is not accepted: accepted is a list"),
        ("audit: 3\n", "audit: 3 is not accepted: accepted is a mapping"),
        ("policy_dirs:\n  - /a\n  - b\n", r":3:5: policy_dirs\[1\]: 'b' is not accepted: accepted is an absolute path"),
        ("limits: {cgroups: '12'}\n", "limits.cgroups: '12' is not accepted"),
        ("limits: {flows: 1}\n", "limits.flows: 1 is not accepted: .*greater than or equal to 256"),
        ("limits: {allowDegraded: true}\n", "limits.allowDegraded: unknown key"),
        ("metrics: {enabled: true}\n", "metrics.enabled: .*not supported yet by this version"),
        ("failsafe: [10.0.0.1]\n", "failsafe: .*not supported yet by this version"),
        ("pin_dir: /a\npin_dir: /b\n", ":2:1: pin_dir: given twice"),
        ("- a\n", ":1:1: accepted is a mapping"),
        ("audit: [\n", ":2:1: "),
        ("\tx: 1\n", ":1:1: "),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: &x 1\nb: *x\n", ":2:4: aliases are not accepted here"),
        ("a: &x [*x]\n", ":1:8: aliases are not accepted here"),
        ("[" * 5000 + "\n", "nested too deeply"),
        ("pin_dir: 2026-99-99\n", ":1:10: pin_dir: month must be in"),
        ("limits: {flows: " + "9" * 5000 + "}\n", ":1:17: limits.flows: "),
    ],
)
def test_mistake_names_its_place_and_what_is_accepted(tmp_path: Path, text: str, expected: str) -> None:
    config = write(tmp_path / "cgnetd.yaml", text)
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings(config)
    assert str(caught.value).startswith(f"{config}:")
    assert caught.value.exit_code == 78


def test_every_mistake_is_reported_with_its_own_file(tmp_path: Path) -> None:
    config = write(tmp_path / "cgnetd.yaml", "pin_dir: x\nfoo: 1\n")
    dropin = write(tmp_path / "cgnetd.yaml.d" / "a.yaml", "\nbar: 2\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(config, {"audit.sink": "nowhere", "no.such.key": 1})
    lines = str(caught.value).splitlines()
    place = "command line:0:0"
    assert sorted(line.split(": ")[0] for line in lines) == sorted(
        [f"{config}:1:1", f"{config}:2:1", f"{dropin}:2:1", place, place]
    )


def test_invalid_bytes_and_missing_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"pin_dir: \xff\xfe\n")
    with pytest.raises(SettingsError, match=r"bytes\.yaml:1:10: is not UTF-8: invalid start byte$"):
        load_settings(str(tmp_path / "bytes.yaml"))
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings(str(tmp_path / "missing.yaml"))


def test_file_that_is_none_holds_nobody(tmp_path: Path) -> None:
    config, dropins = write(tmp_path / "cgnetd.yaml", "pin_dir: /a\n"), tmp_path / "cgnetd.yaml.d"
    dropins.mkdir()
    (dropins / "a.yaml").symlink_to(os.devnull)
    assert str(load_settings(config).pin_dir) == "/a"
    os.mkfifo(dropins / "b.yaml")
    with pytest.raises(SettingsError, match=r"b\.yaml:0:0: cannot be read: not a regular file$"):
        load_settings(config)
    (dropins / "b.yaml").unlink()
    with (dropins / "b.yaml").open("wb") as sparse:
        sparse.truncate(4 << 30)
    with pytest.raises(
        SettingsError, match=r"b\.yaml:0:0: cannot be read: too large: accepted are up to 1048576 bytes$"
    ):
        load_settings(config)


def test_list_of_wrong_items_is_no_second_mistake(tmp_path: Path) -> None:
    config = write(tmp_path / "cgnetd.yaml", "policy_dirs: [rel]\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(config)
    assert str(caught.value) == f"{config}:1:15: policy_dirs[0]: 'rel' is not accepted: accepted is an absolute path"


@pytest.mark.parametrize("text", ["audit.window", "=3", "a=[", "a={b"])
def test_override_that_is_no_pair_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_override(text)
