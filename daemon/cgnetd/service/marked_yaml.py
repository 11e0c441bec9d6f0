# SPDX-License-Identifier: Apache-2.0
"""A small YAML file as plain data, with the place of every key: for settings, not for policies.

Must not know what the data means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cgnetd.errors import Problem
from cgnetd.policy.types import Where

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Marked:
    """`marks` holds the place of every mapping key and list item by its path."""

    data: Any
    marks: Mapping[KeyPath, Where]


class MarkedYamlError(Exception):
    """A file that is no usable YAML."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """Without aliases: one that stands for what it is in would never end."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not accepted here", problem_mark=mark)
        return super().compose_node(parent, index)


def read_marked(file: str, data: bytes) -> Marked:
    """Parse one document. Raises MarkedYamlError for what is no YAML, several documents, aliases or duplicate keys."""
    try:
        loader = _Loader(data)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise MarkedYamlError(Problem(file, *place, "", message)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MarkedYamlError(
            _unreadable(file, data) or Problem(file, 0, 0, "", " ".join(str(error).split()))
        ) from None
    except RecursionError:
        raise MarkedYamlError(Problem(file, 0, 0, "", "is nested too deeply")) from None
    marks: dict[KeyPath, Where] = {}
    plain = _plain(loader, file, node, (), marks) if node is not None else None
    return Marked(plain, marks)


def _unreadable(file: str, data: bytes) -> Problem | None:
    """Where it is not UTF-8, if that is what is wrong."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        lines = data[: error.start].decode().split("\n")
        return Problem(file, len(lines), len(lines[-1]) + 1, "", f"is not UTF-8: {error.reason}")
    return None


def _plain(loader: yaml.SafeLoader, file: str, node: yaml.Node, path: KeyPath, marks: dict[KeyPath, Where]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, file, node, path, marks)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            marks[(*path, index)] = _where(file, item)
            items.append(_plain(loader, file, item, (*path, index), marks))
        return items
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date that is none, a number without end
        raise _error(file, node, path, " ".join(str(error).split())) from None


def _mapping(
    loader: yaml.SafeLoader, file: str, node: yaml.MappingNode, path: KeyPath, marks: dict[KeyPath, Where]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or key == "<<":
            raise _error(file, key_node, path, "a key must be a word")
        if key in found:
            raise _error(file, key_node, (*path, key), "given twice")
        marks[(*path, key)] = _where(file, key_node)
        found[key] = _plain(loader, file, value_node, (*path, key), marks)
    return found


def _where(file: str, node: yaml.Node) -> Where:
    return Where(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _error(file: str, node: yaml.Node, path: KeyPath, message: str) -> MarkedYamlError:
    where = _where(file, node)
    return MarkedYamlError(Problem(file, where.line, where.column, dotted(path), message))


def dotted(path: KeyPath) -> str:
    """("audit", "x", 0) -> "audit.x[0]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
