# SPDX-License-Identifier: Apache-2.0
"""Where settings come from: the settings file, its drop-ins, the command line.

`cgnetd.yaml`, then the files of `cgnetd.yaml.d/` by name, then what the command line says: later ones win key by key.
Every error names the place. Must not know what the settings do.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cgnetd.errors import Problem, SettingsError, UsageError
from cgnetd.policy.types import Where
from cgnetd.service import places
from cgnetd.service.files import read_now
from cgnetd.service.marked_yaml import KeyPath, Marked, MarkedYamlError, dotted, read_marked
from cgnetd.service.settings import Settings

COMMAND_LINE = "command line"
LARGEST_BYTES = 1024 * 1024  # of one file
_NULLABLE = ("cgroup_root", "control_group")  # null means something there
_ACCEPTED = {"tuple_type": "a list", "model_type": "a mapping", "too_short": "a list with at least one item"}


def load_settings(config: str | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings file `config` (default: /etc/cgnetd/cgnetd.yaml, which may be missing) and its drop-ins.

    `overrides`: values by dotted key ("audit.sink"), stronger than the files. Raises SettingsError with one line a
    problem, `file:line:column: key: what is wrong, what is accepted`.
    """
    path = config or places.CONFIG
    data: dict[str, Any] = {}
    marks: dict[KeyPath, Where] = {}
    for file in _files(path, must_exist=config is not None):
        part = _read(file)
        _merge(data, part.data)
        marks.update(part.marks)
    for key, value in (overrides or {}).items():
        _override(data, marks, key, value)
    return _validate(data, marks, path)


def parse_override(text: str) -> tuple[str, Any]:
    """ "audit.window=5s" -> ("audit.window", "5s"); the value is read as YAML. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"set {text!r}: accepted is KEY=VALUE, for example audit.window=5s")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"set {key}: {' '.join(str(error).split())}") from None


def _files(path: str, *, must_exist: bool) -> list[str]:
    found = [path] if must_exist or os.path.exists(path) else []
    directory = f"{path}.d"
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        raise SettingsError(f"{directory}:0:0: cannot be read: {error.strerror}") from None
    return [*found, *(os.path.join(directory, n) for n in names if n.endswith(".yaml") and not n.startswith("."))]


def _read(file: str) -> Marked:
    try:
        content = read_now(file, LARGEST_BYTES)
    except OSError as error:
        raise SettingsError(f"{file}:0:0: cannot be read: {error.strerror or error}") from None
    try:
        marked = read_marked(file, content)
    except MarkedYamlError as error:
        raise SettingsError(str(error.problem)) from None
    if marked.data is None:
        return Marked({}, {})
    if not isinstance(marked.data, dict):
        raise SettingsError(f"{file}:1:1: accepted is a mapping of settings")
    return marked


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Mappings merge, everything else is replaced. A section left empty in a file is the section unchanged."""
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif value is not None or key in _NULLABLE:
            into[key] = value


def _override(data: dict[str, Any], marks: dict[KeyPath, Where], key: str, value: Any) -> None:
    path: KeyPath = tuple(key.split("."))
    for part in reversed(path):
        value = {part: value}
    _merge(data, value)
    for stale in [known for known in marks if known[: len(path)] == path]:
        del marks[stale]
    marks[path] = Where(COMMAND_LINE, 0, 0)


def _validate(data: Mapping[str, Any], marks: Mapping[KeyPath, Where], path: str) -> Settings:
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        details = [detail for detail in error.errors(include_url=False) if not _follows(detail)]
        problems = sorted(_problem(detail, marks, path) for detail in details)
        raise SettingsError("\n".join(str(problem) for problem in problems)) from None


def _follows(detail: ErrorDetails) -> bool:
    """Whether it only says that a list whose items are all wrong has too few good ones."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _problem(detail: ErrorDetails, marks: Mapping[KeyPath, Where], path: str) -> Problem:
    location = detail["loc"]
    where = Where(path, 0, 0)
    for length in range(len(location), 0, -1):
        if location[:length] in marks:
            where = marks[location[:length]]
            break
    else:  # a dotted key of the command line names what is below a key that there is not
        where = next((mark for key, mark in marks.items() if key[: len(location)] == location), where)
    return Problem(where.file, where.line, where.column, dotted(location), _message(detail))


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return _unknown_key(detail["loc"])
    text = detail["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if detail["type"] in _ACCEPTED:
        text = f"accepted is {_ACCEPTED[detail['type']]}"
    shown = repr(detail["input"])
    return f"{shown[:60]} is not accepted: {text}"


def _unknown_key(location: KeyPath) -> str:
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    accepted = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), accepted, 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"unknown key, accepted are {', '.join(accepted)}{hint}"
