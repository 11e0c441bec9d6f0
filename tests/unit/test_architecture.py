# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, how large a file may grow, and what every file says of itself."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent.parent
PYTHON = sorted((TOP / "daemon").rglob("*.py"))
SOURCES = sorted(
    TOP / name
    for name in subprocess.run(
        ["git", "ls-files", "--", "*.py", "*.c", "*.h", "*.sh", "Makefile", "*/Makefile"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if (TOP / name).exists()
)

# Rooms that a room may import, itself apart. Everything may import errors.
ALLOWED = {
    "pybpf": frozenset[str](),
    "errors": frozenset[str](),
    "policy": frozenset[str](),
    "datapath": frozenset({"policy"}),
    "kernel": frozenset({"pybpf"}),
    "service": frozenset({"policy", "datapath", "kernel"}),
    "cli": frozenset({"policy", "datapath", "kernel", "service"}),
}
PURE = ("policy", "datapath")
OUTSIDE = {"os", "io", "time", "socket", "subprocess", "asyncio", "ctypes", "select", "selectors", "shutil", "pathlib"}
PURE_PARTS = {"policy": {"socket", "os"}, "datapath": {"os"}}  # inet_pton, fsencode: conversions of values only
LINES_MAX = 400
FUNCTION_MAX = 60


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "pybpf":
        return "pybpf"
    if parts[0] != "cgnetd" or len(parts) < 2:
        return None
    return parts[1]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(TOP / "daemon").with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    package = module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_there_is_something_to_look_at() -> None:
    assert {room_of(module_of(path)) for path in PYTHON} >= set(ALLOWED)
    assert len(SOURCES) > len(PYTHON)


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(TOP)))
def test_rooms_import_downward_only(path: Path) -> None:
    room = room_of(module_of(path))
    if room not in ALLOWED:
        return
    for module in imports(path):
        other = room_of(module)
        if other in ALLOWED and other not in {room, "errors"}:
            assert other in ALLOWED[room], f"{path} imports {module}"


@pytest.mark.parametrize(
    "path", [p for p in PYTHON if room_of(module_of(p)) in PURE], ids=lambda path: str(path.relative_to(TOP))
)
def test_pure_rooms_know_no_outside_world(path: Path) -> None:
    room = room_of(module_of(path)) or ""
    used = {module.split(".")[0] for module in imports(path)}
    assert not used & (OUTSIDE - PURE_PARTS[room])


def test_only_pybpf_loads_libbpf_and_only_one_file_talks_to_the_journal() -> None:
    users = [p for p in PYTHON if any(module.startswith("systemd.journal") for module in imports(p))]
    assert [p.relative_to(TOP / "daemon" / "cgnetd").as_posix() for p in users] in (["service/journal.py"], [])
    assert [p.parent.name for p in PYTHON if "libbpf.so" in re.sub(r'""".*?"""', "", p.read_text(), flags=re.S)] == [
        "pybpf"
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TOP)))
def test_files_stay_small_and_name_their_licence(path: Path) -> None:
    text = path.read_text()
    licence = "GPL-2.0-only" if path.relative_to(TOP).parts[0] == "bpf" or path.suffix in {".c", ".h"} else "Apache-2.0"
    first = "\n".join(text.splitlines()[:2])
    assert f"SPDX-License-Identifier: {licence}" in first or "SPDX-License-Identifier: Apache-2.0" in first
    assert text.count("\n") <= LINES_MAX


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(TOP)))
def test_functions_stay_short_and_modules_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_MAX, f"{path}: {node.name}"
