# SPDX-License-Identifier: Apache-2.0
"""The Python mirror of the ABI says what the C header says: every constant, size and offset, by the C compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cgnetd.datapath import abi

INCLUDE = Path(__file__).parents[2] / "bpf" / "include"
HEADERS = (INCLUDE / "cgnetd" / "abi.h", INCLUDE / "cgnetd" / "tables.h", INCLUDE / "cgnetd" / "views.h")
TEXT = "".join(header.read_text() for header in HEADERS)
DEFINE = re.compile(r"^#define (CGN_\w+) ", re.MULTILINE)
ENUMERATOR = re.compile(r"^\s+(CGN_\w+) = ", re.MULTILINE)
STRUCT = re.compile(r"^struct (cgn_\w+) \{", re.MULTILINE)


def constants(text: str) -> list[str]:
    return DEFINE.findall(text) + ENUMERATOR.findall(text)


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Everything the compiler knows: constants by name, `sizeof STRUCT`, `STRUCT.FIELD`."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, clang): the ABI header cannot be compared")
    lines = [f'printf("{name} %llu\\n", (unsigned long long)({name}));' for name in constants(TEXT)]
    for layout in abi.LAYOUTS:
        lines.append(f'printf("sizeof {layout.name} %zu\\n", sizeof(struct {layout.name}));')
        for field, _ in layout.fields:
            where = f"offsetof(struct {layout.name}, {field})"
            lines.append(f'printf("{layout.name}.{field} %zu\\n", {where});')
    directory = tmp_path_factory.mktemp("abi")
    source = directory / "abi.c"
    head = "#include <stddef.h>\n#include <stdio.h>\n#include <cgnetd/abi.h>\nint main(void) {\n"
    source.write_text(head + "\n".join(lines) + "\nreturn 0;\n}\n")
    program = directory / "abi"
    subprocess.run([compiler, "-std=gnu11", "-Werror", "-I", INCLUDE, "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in output.splitlines())}


def test_every_constant_of_the_header_is_mirrored_with_its_value(in_c: dict[str, int]) -> None:
    names = constants(TEXT)
    assert len(names) > 70
    mirrored = {name: getattr(abi, name.removeprefix("CGN_"), None) for name in names}
    assert mirrored == {name: in_c[name] for name in names}


def test_the_mirror_has_no_constant_that_the_header_lacks() -> None:
    names = {name.removeprefix("CGN_") for name in constants(TEXT)}
    ours = {name for name, value in vars(abi).items() if name.isupper() and isinstance(value, int)}
    assert ours == names


def test_every_struct_is_mirrored_with_its_size(in_c: dict[str, int]) -> None:
    assert {layout.name for layout in abi.LAYOUTS} == set(STRUCT.findall(TEXT))
    assert {x.name: x.size for x in abi.LAYOUTS} == {x.name: in_c[f"sizeof {x.name}"] for x in abi.LAYOUTS}


@pytest.mark.parametrize("layout", abi.LAYOUTS, ids=lambda layout: layout.name)
def test_every_field_of_a_struct_is_at_its_offset(layout: abi.Layout, in_c: dict[str, int]) -> None:
    assert layout.offsets() == {field: in_c[f"{layout.name}.{field}"] for field, _ in layout.fields}


@pytest.mark.parametrize("layout", abi.LAYOUTS, ids=lambda layout: layout.name)
def test_every_field_of_a_struct_is_mirrored_by_name(layout: abi.Layout) -> None:
    body = re.search(rf"^struct {layout.name} \{{(.*?)^\}};", TEXT, re.MULTILINE | re.DOTALL)
    assert body is not None
    code = re.sub(r"/\*.*?\*/", "", body.group(1), flags=re.DOTALL)
    fields = re.findall(r"(\w+)(?:\[\w+\])?;", code)
    assert [field for field, _ in layout.fields] == fields


def test_a_cell_is_taken_apart_as_it_was_put_together() -> None:
    value = abi.cell(0xFFFFFFFF, 7)
    assert (value, abi.hi(value), abi.lo(value)) == (0xFFFFFFFF00000007, 0xFFFFFFFF, 7)
